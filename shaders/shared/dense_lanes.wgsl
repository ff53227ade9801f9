// The engine for software adapters whose subgroups are eight lanes of one vector register.
//
// Such a device runs a workgroup on one core, with an SIMD register for each variable and an
// element of it for each invocation. Its loads are the expensive part (one lane after the other),
// so a workgroup is one register wide and holds a large tile of y in registers and on the stack:
// columns lie in lanes, rows in variables. Each lane loads rows of a that all lanes need, and a
// shuffle by a literal index, a single instruction, hands them around. Workgroup memory and barriers
// would only add more loads. Loops over private arrays have literal bounds equal to the array's
// length, so that the compiler unrolls them and keeps the elements in registers.
//
// Needs ROW_GROUPS and COL_GROUPS: the tile in units of eight rows and eight columns. Quads along
// rows (columns) take these by fours.

const LANES = 8u;
const TILE_ROWS = LANES * ROW_GROUPS;
const TILE_COLS = LANES * COL_GROUPS;

// The row that element `lane` of row group `i` stands for: quads along rows give a lane four rows.
fn row_at(i: u32, lane: u32) -> u32 {
    return select(32u * (i / 4u) + 4u * lane + i % 4u, LANES * i + lane, A_ALONG_INNER);
}

fn col_at(i: u32, lane: u32) -> u32 {
    return select(32u * (i / 4u) + 4u * lane + i % 4u, LANES * i + lane, B_ALONG_INNER);
}

// For each row group the elements k .. k + 4 of this lane's row.
fn load_a(rows: array<Row, ROW_GROUPS>, k: u32) -> array<vec4<f32>, ROW_GROUPS> {
    var a: array<vec4<f32>, ROW_GROUPS>;
    if A_ALONG_INNER {
        for (var i = 0u; i < ROW_GROUPS; i++) {
            a[i] = a_quad(rows[i], k);
        }
    } else {
        for (var i = 0u; i < ROW_GROUPS; i += 4u) {
            let row = rows[i];
            let quads = mat4x4<f32>(
                a_quad(row, k), a_quad(row, k + 1u), a_quad(row, k + 2u), a_quad(row, k + 3u)
            );
            let turned = transpose(quads);
            a[i] = turned[0];
            a[i + 1u] = turned[1];
            a[i + 2u] = turned[2];
            a[i + 3u] = turned[3];
        }
    }
    return a;
}

fn load_b(cols: array<Col, COL_GROUPS>, k: u32) -> array<vec4<f32>, COL_GROUPS> {
    var b: array<vec4<f32>, COL_GROUPS>;
    if B_ALONG_INNER {
        for (var i = 0u; i < COL_GROUPS; i++) {
            b[i] = b_quad(cols[i], k);
        }
    } else {
        for (var i = 0u; i < COL_GROUPS; i += 4u) {
            let col = cols[i];
            let quads = mat4x4<f32>(
                b_quad(col, k), b_quad(col, k + 1u), b_quad(col, k + 2u), b_quad(col, k + 3u)
            );
            let turned = transpose(quads);
            b[i] = turned[0];
            b[i + 1u] = turned[1];
            b[i + 2u] = turned[2];
            b[i + 3u] = turned[3];
        }
    }
    return b;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let tile = id.y * GRID_X + id.x;
    if tile >= TILES {
        return;
    }
    let group = id.z / SPLITS;
    let split = id.z % SPLITS;
    let first_row = tile / COL_TILES * TILE_ROWS;
    let first_col = tile % COL_TILES * TILE_COLS;

    var rows: array<Row, ROW_GROUPS>;
    var row_biases: array<f32, ROW_GROUPS>;
    for (var i = 0u; i < ROW_GROUPS; i++) {
        rows[i] = row_of(group, first_row + row_at(i, lane));
        row_biases[i] = row_bias(group, first_row + row_at(i, lane));
    }
    var cols: array<Col, COL_GROUPS>;
    var col_biases: array<f32, COL_GROUPS>;
    for (var i = 0u; i < COL_GROUPS; i++) {
        cols[i] = col_of(group, first_col + col_at(i, lane));
        col_biases[i] = col_bias(first_col + col_at(i, lane));
    }

    var sums: array<array<array<f32, COL_GROUPS>, LANES>, ROW_GROUPS>;
    let end = min(split * CHUNK + CHUNK, INNER);
    for (var k = split * CHUNK; k < end; k += 4u) {
        let a = load_a(rows, k);
        let b = load_b(cols, k);
        for (var i = 0u; i < ROW_GROUPS; i++) {
            for (var j = 0u; j < LANES; j++) {
                let shared_a = subgroupShuffle(a[i], j);
                for (var l = 0u; l < COL_GROUPS; l++) {
                    sums[i][j][l] += dot(shared_a, b[l]);
                }
            }
        }
    }

    for (var i = 0u; i < ROW_GROUPS; i++) {
        for (var j = 0u; j < LANES; j++) {
            let row = first_row + row_at(i, j);
            let bias = subgroupShuffle(row_biases[i], j);
            for (var l = 0u; l < COL_GROUPS; l++) {
                let col = first_col + col_at(l, lane);
                if row < ROWS && col < COLS {
                    let sum = sums[i][j][l] + bias + col_biases[l];
                    y[place(split, group, row, col)] = activate(sum);
                }
            }
        }
    }
}
