// The engine for matrix units: a workgroup of four subgroups of 32 invocations computes a tile of y, each
// subgroup a quarter of it, in squares of 16 by 16. Slices of a and b, STEP deep, are copied into
// workgroup memory as f16; a subgroup loads squares of them and multiplies them into f32.
//
// As in dense_tiled.wgsl there are two slices, one read while the other is written. Operands keep the
// direction in which they are read: a line of a slice is a row (column) where the operand lies along the
// inner dimension, else one k; the matrix units take both. Lines are padded by 16 bytes, which keeps
// the rows of a square out of one bank.
//
// What the units hold cannot be read element by element, so results leave through workgroup memory.
//
// Needs ROW_SQUARES and COL_SQUARES: squares that a subgroup has along rows and columns; and STEP.

const SQUARE = 16u;
const TEAMS = 4u;
const TEAM = 32u;
const INVOCATIONS = TEAMS * TEAM;
const TILE_ROWS = 2u * SQUARE * ROW_SQUARES;
const TILE_COLS = 2u * SQUARE * COL_SQUARES;
// Fours in a line without its padding, and with it, and lines of a slice.
const A_LINE = select(TILE_ROWS, STEP, A_ALONG_INNER) / 4u;
const B_LINE = select(TILE_COLS, STEP, B_ALONG_INNER) / 4u;
const A_PITCH = A_LINE + 2u;
const B_PITCH = B_LINE + 2u;
const A_SLICE = A_PITCH * select(STEP, TILE_ROWS, A_ALONG_INNER);
const B_SLICE = B_PITCH * select(STEP, TILE_COLS, B_ALONG_INNER);
// Fours of a slice that an invocation copies, and how many rows (columns) it must know for them: with
// one k a line, they are all of the same four.
const A_EACH = TILE_ROWS * STEP / 4u / INVOCATIONS;
const B_EACH = TILE_COLS * STEP / 4u / INVOCATIONS;
const A_KNOWN = select(1u, A_EACH, A_ALONG_INNER);
const B_KNOWN = select(1u, B_EACH, B_ALONG_INNER);

var<workgroup> a_slices: array<vec4<f16>, 2u * A_SLICE>;
var<workgroup> b_slices: array<vec4<f16>, 2u * B_SLICE>;
// A square of results of each subgroup.
var<workgroup> corner: array<vec4<f32>, TEAMS * SQUARE * SQUARE / 4u>;

// The fours of a slice from k on that an invocation copies: they lie INVOCATIONS apart.
fn read_a(rows: array<Row, A_KNOWN>, lane: u32, k: u32) -> array<vec4<f16>, A_EACH> {
    var fours: array<vec4<f16>, A_EACH>;
    for (var i = 0u; i < A_EACH; i++) {
        let four = lane + i * INVOCATIONS;
        let depth = select(four / A_LINE, 4u * (four % A_LINE), A_ALONG_INNER);
        fours[i] = vec4<f16>(a_quad(rows[i % A_KNOWN], k + depth));
    }
    return fours;
}

fn read_b(cols: array<Col, B_KNOWN>, lane: u32, k: u32) -> array<vec4<f16>, B_EACH> {
    var fours: array<vec4<f16>, B_EACH>;
    for (var i = 0u; i < B_EACH; i++) {
        let four = lane + i * INVOCATIONS;
        let depth = select(four / B_LINE, 4u * (four % B_LINE), B_ALONG_INNER);
        fours[i] = vec4<f16>(b_quad(cols[i % B_KNOWN], k + depth));
    }
    return fours;
}

fn store_a(fours: array<vec4<f16>, A_EACH>, lane: u32, slice: u32) {
    for (var i = 0u; i < A_EACH; i++) {
        let four = lane + i * INVOCATIONS;
        a_slices[slice * A_SLICE + four / A_LINE * A_PITCH + four % A_LINE] = fours[i];
    }
}

fn store_b(fours: array<vec4<f16>, B_EACH>, lane: u32, slice: u32) {
    for (var i = 0u; i < B_EACH; i++) {
        let four = lane + i * INVOCATIONS;
        b_slices[slice * B_SLICE + four / B_LINE * B_PITCH + four % B_LINE] = fours[i];
    }
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) team: u32,
    @builtin(subgroup_invocation_id) member: u32,
) {
    let tile = id.y * GRID_X + id.x;
    if tile >= TILES {
        return;
    }
    let group = id.z / SPLITS;
    let split = id.z % SPLITS;
    let first_row = tile / COL_TILES * TILE_ROWS;
    let first_col = tile % COL_TILES * TILE_COLS;

    var rows: array<Row, A_KNOWN>;
    for (var i = 0u; i < A_KNOWN; i++) {
        let four = lane + i * INVOCATIONS;
        rows[i] = row_of(group, first_row + select(4u * (four % A_LINE), four / A_LINE, A_ALONG_INNER));
    }
    var cols: array<Col, B_KNOWN>;
    for (var i = 0u; i < B_KNOWN; i++) {
        let four = lane + i * INVOCATIONS;
        cols[i] = col_of(group, first_col + select(4u * (four % B_LINE), four / B_LINE, B_ALONG_INNER));
    }

    // The squares of this subgroup.
    let team_row = team / 2u * ROW_SQUARES * SQUARE;
    let team_col = team % 2u * COL_SQUARES * SQUARE;
    var sums: array<array<coop_mat16x16<f32, C>, COL_SQUARES>, ROW_SQUARES>;
    let start = split * CHUNK;
    let end = min(start + CHUNK, INNER);
    var slice = 0u;
    var next_a = read_a(rows, lane, start);
    var next_b = read_b(cols, lane, start);
    store_a(next_a, lane, slice);
    store_b(next_b, lane, slice);
    workgroupBarrier();
    for (var k = start; k < end; k += STEP) {
        let more = k + STEP < end;
        if more {
            next_a = read_a(rows, lane, k + STEP);
            next_b = read_b(cols, lane, k + STEP);
        }
        for (var depth = 0u; depth < STEP; depth += SQUARE) {
            var a: array<coop_mat16x16<f16, A>, ROW_SQUARES>;
            for (var i = 0u; i < ROW_SQUARES; i++) {
                let row = team_row + i * SQUARE;
                if A_ALONG_INNER {
                    let at = slice * A_SLICE + row * A_PITCH + depth / 4u;
                    a[i] = coopLoadT<coop_mat16x16<f16, A>>(&a_slices[at], A_PITCH);
                } else {
                    let at = slice * A_SLICE + depth * A_PITCH + row / 4u;
                    a[i] = coopLoad<coop_mat16x16<f16, A>>(&a_slices[at], A_PITCH);
                }
            }
            for (var j = 0u; j < COL_SQUARES; j++) {
                let col = team_col + j * SQUARE;
                var b: coop_mat16x16<f16, B>;
                if B_ALONG_INNER {
                    let at = slice * B_SLICE + col * B_PITCH + depth / 4u;
                    b = coopLoad<coop_mat16x16<f16, B>>(&b_slices[at], B_PITCH);
                } else {
                    let at = slice * B_SLICE + depth * B_PITCH + col / 4u;
                    b = coopLoadT<coop_mat16x16<f16, B>>(&b_slices[at], B_PITCH);
                }
                for (var i = 0u; i < ROW_SQUARES; i++) {
                    sums[i][j] = coopMultiplyAdd(a[i], b, sums[i][j]);
                }
            }
        }
        slice = 1u - slice;
        if more {
            store_a(next_a, lane, slice);
            store_b(next_b, lane, slice);
        }
        workgroupBarrier();
    }

    let place = team * (SQUARE * SQUARE / 4u);
    for (var i = 0u; i < ROW_SQUARES; i++) {
        for (var j = 0u; j < COL_SQUARES; j++) {
            coopStoreT(sums[i][j], &corner[place], SQUARE / 4u);
            workgroupBarrier();
            for (var quad = member; quad < SQUARE * SQUARE / 4u; quad += TEAM) {
                let row = first_row + team_row + i * SQUARE + quad / (SQUARE / 4u);
                let col = first_col + team_col + j * SQUARE + quad % (SQUARE / 4u) * 4u;
                let biases = row_bias(group, row)
                    + vec4<f32>(col_bias(col), col_bias(col + 1u), col_bias(col + 2u), col_bias(col + 3u));
                write_quad(split, group, row, col, corner[place + quad] + biases);
            }
            workgroupBarrier();
        }
    }
}
