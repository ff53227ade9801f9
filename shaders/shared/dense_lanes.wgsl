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
// Needs ROW_GROUPS and COL_QUADS: the tile in units of eight rows, which quads along rows take by
// fours, and of 32 columns, of which each lane has four that lie side by side.

const LANES = 8u;
const TILE_ROWS = LANES * ROW_GROUPS;
const TILE_COLS = 4u * LANES * COL_QUADS;
const LANE_COLS = 4u * COL_QUADS;

// The row that element `lane` of row group `i` stands for: quads along rows give a lane four rows.
fn row_at(i: u32, lane: u32) -> u32 {
    return select(32u * (i / 4u) + 4u * lane + i % 4u, LANES * i + lane, A_ALONG_INNER);
}

// The first of the four columns that a lane has of each 32.
fn col_at(i: u32, lane: u32) -> u32 {
    return 4u * (LANES * i + lane);
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

// For each column of this lane the elements k .. k + 4.
fn load_b(cols: array<Col, LANE_COLS>, k: u32) -> array<vec4<f32>, LANE_COLS> {
    var b: array<vec4<f32>, LANE_COLS>;
    if B_ALONG_INNER {
        for (var i = 0u; i < LANE_COLS; i++) {
            b[i] = b_quad(cols[i], k);
        }
    } else {
        for (var i = 0u; i < LANE_COLS; i += 4u) {
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
    // Tiles that follow one another share the columns of a b that is read in rows, which lie far
    // apart and are dear to read again; else they share the rows of a.
    let row_tiles = TILES / COL_TILES;
    let first_row = select(tile % row_tiles, tile / COL_TILES, B_ALONG_INNER) * TILE_ROWS;
    let first_col = select(tile / row_tiles, tile % COL_TILES, B_ALONG_INNER) * TILE_COLS;

    var rows: array<Row, ROW_GROUPS>;
    var row_biases: array<f32, ROW_GROUPS>;
    for (var i = 0u; i < ROW_GROUPS; i++) {
        rows[i] = row_of(group, first_row + row_at(i, lane));
        row_biases[i] = row_bias(group, first_row + row_at(i, lane));
    }
    var cols: array<Col, LANE_COLS>;
    var col_biases: array<f32, LANE_COLS>;
    for (var i = 0u; i < LANE_COLS; i++) {
        let col = first_col + col_at(i / 4u, lane) + i % 4u;
        cols[i] = col_of(group, col);
        col_biases[i] = col_bias(col);
    }

    var sums: array<array<array<f32, LANE_COLS>, LANES>, ROW_GROUPS>;
    let end = min(split * CHUNK + CHUNK, INNER);
    for (var k = split * CHUNK; k < end; k += 4u) {
        let a = load_a(rows, k);
        let b = load_b(cols, k);
        for (var i = 0u; i < ROW_GROUPS; i++) {
            for (var j = 0u; j < LANES; j++) {
                let shared_a = subgroupShuffle(a[i], j);
                for (var l = 0u; l < LANE_COLS; l++) {
                    sums[i][j][l] += dot(shared_a, b[l]);
                }
            }
        }
    }

    for (var i = 0u; i < ROW_GROUPS; i++) {
        for (var j = 0u; j < LANES; j++) {
            let bias = subgroupShuffle(row_biases[i], j);
            for (var l = 0u; l < LANE_COLS; l += 4u) {
                let values = vec4<f32>(
                    sums[i][j][l] + col_biases[l],
                    sums[i][j][l + 1u] + col_biases[l + 1u],
                    sums[i][j][l + 2u] + col_biases[l + 2u],
                    sums[i][j][l + 3u] + col_biases[l + 3u]
                );
                let col = first_col + col_at(l / 4u, lane);
                write_quad(split, group, first_row + row_at(i, j), col, values + bias);
            }
        }
    }
}
