// The engine for GPUs: a workgroup of 16 by 16 invocations computes a tile of y. It copies a slice of
// a and b, STEP deep, into workgroup memory, whose rows are padded so that neighbouring invocations
// do not meet in one bank; then each invocation multiplies its own rows with its own columns from
// registers. An invocation's rows and columns lie 16 apart, so that neighbours read and write
// neighbouring elements.
//
// Needs ROWS_EACH and COLS_EACH: rows and columns of an invocation.

const SIDE = 16u;
const INVOCATIONS = SIDE * SIDE;
const STEP = 16u;
const TILE_ROWS = SIDE * ROWS_EACH;
const TILE_COLS = SIDE * COLS_EACH;
const A_PITCH = TILE_ROWS + 1u;
const B_PITCH = TILE_COLS + 1u;

var<workgroup> a_slice: array<f32, STEP * A_PITCH>;
var<workgroup> b_slice: array<f32, STEP * B_PITCH>;

fn copy_a(group: u32, first_row: u32, first_k: u32, lane: u32) {
    for (var quad = lane; quad < TILE_ROWS * STEP / 4u; quad += INVOCATIONS) {
        if A_ALONG_INNER {
            let row = quad / (STEP / 4u);
            let k = quad % (STEP / 4u) * 4u;
            let values = a_quad(row_of(group, first_row + row), first_k + k);
            for (var i = 0u; i < 4u; i++) {
                a_slice[(k + i) * A_PITCH + row] = values[i];
            }
        } else {
            let row = quad % (TILE_ROWS / 4u) * 4u;
            let k = quad / (TILE_ROWS / 4u);
            let values = a_quad(row_of(group, first_row + row), first_k + k);
            for (var i = 0u; i < 4u; i++) {
                a_slice[k * A_PITCH + row + i] = values[i];
            }
        }
    }
}

fn copy_b(group: u32, first_col: u32, first_k: u32, lane: u32) {
    for (var quad = lane; quad < TILE_COLS * STEP / 4u; quad += INVOCATIONS) {
        if B_ALONG_INNER {
            let col = quad / (STEP / 4u);
            let k = quad % (STEP / 4u) * 4u;
            let values = b_quad(col_of(group, first_col + col), first_k + k);
            for (var i = 0u; i < 4u; i++) {
                b_slice[(k + i) * B_PITCH + col] = values[i];
            }
        } else {
            let col = quad % (TILE_COLS / 4u) * 4u;
            let k = quad / (TILE_COLS / 4u);
            let values = b_quad(col_of(group, first_col + col), first_k + k);
            for (var i = 0u; i < 4u; i++) {
                b_slice[k * B_PITCH + col + i] = values[i];
            }
        }
    }
}

@compute @workgroup_size(INVOCATIONS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = id.y * GRID_X + id.x;
    if tile >= TILES {
        return;
    }
    let group = id.z / SPLITS;
    let split = id.z % SPLITS;
    let first_row = tile / COL_TILES * TILE_ROWS;
    let first_col = tile % COL_TILES * TILE_COLS;
    let lane_row = lane / SIDE;
    let lane_col = lane % SIDE;

    var sums: array<array<f32, COLS_EACH>, ROWS_EACH>;
    let end = min(split * CHUNK + CHUNK, INNER);
    for (var first_k = split * CHUNK; first_k < end; first_k += STEP) {
        copy_a(group, first_row, first_k, lane);
        copy_b(group, first_col, first_k, lane);
        workgroupBarrier();
        for (var k = 0u; k < STEP; k++) {
            var b: array<f32, COLS_EACH>;
            for (var j = 0u; j < COLS_EACH; j++) {
                b[j] = b_slice[k * B_PITCH + lane_col + SIDE * j];
            }
            for (var i = 0u; i < ROWS_EACH; i++) {
                let a = a_slice[k * A_PITCH + lane_row + SIDE * i];
                for (var j = 0u; j < COLS_EACH; j++) {
                    sums[i][j] += a * b[j];
                }
            }
        }
        workgroupBarrier();
    }

    for (var i = 0u; i < ROWS_EACH; i++) {
        let row = first_row + lane_row + SIDE * i;
        for (var j = 0u; j < COLS_EACH; j++) {
            let col = first_col + lane_col + SIDE * j;
            let sum = sums[i][j] + row_bias(group, row) + col_bias(col);
            write(split, group, row, col, sum);
        }
    }
}
