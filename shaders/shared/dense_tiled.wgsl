// The engine for GPUs: a workgroup computes a tile of y. It copies a slice of a and b, STEP deep, into
// workgroup memory; then each invocation multiplies its own rows with its own columns from registers.
//
// There are two slices. While one is multiplied, the next is already on its way from global memory
// into registers, and from there it goes into the other, so a step has a single barrier. An
// invocation reads blocks of four by four, turned where the operand lies along the inner dimension, so
// that workgroup memory is written and read by fours, and a pitch of an odd number of fours keeps
// neighbours out of one bank. Rows and columns of an invocation come in fours that lie LANE_ROWS (LANE_COLS)
// fours apart: neighbours read and write neighbouring elements, and the 32 invocations that most
// GPUs run together share 4 fours of rows and 8 of columns.
//
// Needs LANE_ROWS and LANE_COLS: invocations along rows and columns, at least 4 and 8; ROW_QUADS and
// COL_QUADS: fours of each that an invocation has; and STEP.

const INVOCATIONS = LANE_ROWS * LANE_COLS;
// Fours of rows and of columns in a tile, and with the padding of a slice.
const TILE_ROW_QUADS = LANE_ROWS * ROW_QUADS;
const TILE_COL_QUADS = LANE_COLS * COL_QUADS;
const A_PITCH = TILE_ROW_QUADS + 1u;
const B_PITCH = TILE_COL_QUADS + 1u;
const A_SLICE = STEP * A_PITCH;
const SLICE = A_SLICE + STEP * B_PITCH;
// Blocks of four by four in a slice, those of a before those of b, and those of an invocation.
const DEPTH = STEP / 4u;
const A_BLOCKS = DEPTH * TILE_ROW_QUADS;
const BLOCKS = A_BLOCKS + DEPTH * TILE_COL_QUADS;
const BLOCKS_EACH = (BLOCKS + INVOCATIONS - 1u) / INVOCATIONS;
// How many rows (columns) must be known to read a block.
const A_LINES = select(1u, 4u, A_ALONG_INNER);
const B_LINES = select(1u, 4u, B_ALONG_INNER);

var<workgroup> slices: array<vec4<f32>, 2u * SLICE>;

// Where a block lies in its slice: its four rows (columns), and its place along the inner dimension.
// Neighbouring invocations read what lies side by side in memory.
struct Block {
    quad: u32,
    depth: u32,
}

fn a_block(index: u32) -> Block {
    if A_ALONG_INNER {
        return Block(index / DEPTH, index % DEPTH);
    }
    return Block(index % TILE_ROW_QUADS, index / TILE_ROW_QUADS);
}

fn b_block(index: u32) -> Block {
    if B_ALONG_INNER {
        return Block(index / DEPTH, index % DEPTH);
    }
    return Block(index % TILE_COL_QUADS, index / TILE_COL_QUADS);
}

// Four rows of a (columns of b) at k, at k + 1, k + 2 and k + 3.
fn read_a(rows: array<Row, A_LINES>, k: u32) -> mat4x4<f32> {
    var quads: mat4x4<f32>;
    for (var i = 0u; i < 4u; i++) {
        quads[i] = a_quad(rows[i % A_LINES], select(k + i, k, A_ALONG_INNER));
    }
    if A_ALONG_INNER {
        return transpose(quads);
    }
    return quads;
}

fn read_b(cols: array<Col, B_LINES>, k: u32) -> mat4x4<f32> {
    var quads: mat4x4<f32>;
    for (var i = 0u; i < 4u; i++) {
        quads[i] = b_quad(cols[i % B_LINES], select(k + i, k, B_ALONG_INNER));
    }
    if B_ALONG_INNER {
        return transpose(quads);
    }
    return quads;
}

@compute @workgroup_size(INVOCATIONS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = id.y * GRID_X + id.x;
    if tile >= TILES {
        return;
    }
    let group = id.z / SPLITS;
    let split = id.z % SPLITS;
    let first_row = tile / COL_TILES * 4u * TILE_ROW_QUADS;
    let first_col = tile % COL_TILES * 4u * TILE_COL_QUADS;
    // Each 32 invocations are 4 by 8.
    let team = lane / 32u;
    let lane_row = team / (LANE_COLS / 8u) * 4u + lane / 8u % 4u;
    let lane_col = team % (LANE_COLS / 8u) * 8u + lane % 8u;

    // The blocks that this invocation copies.
    var rows: array<array<Row, A_LINES>, BLOCKS_EACH>;
    var cols: array<array<Col, B_LINES>, BLOCKS_EACH>;
    var depths: array<u32, BLOCKS_EACH>;
    var places: array<u32, BLOCKS_EACH>;
    for (var i = 0u; i < BLOCKS_EACH; i++) {
        let index = lane + i * INVOCATIONS;
        if index < A_BLOCKS {
            let block = a_block(index);
            for (var j = 0u; j < A_LINES; j++) {
                rows[i][j] = row_of(group, first_row + 4u * block.quad + j);
            }
            depths[i] = 4u * block.depth;
            places[i] = 4u * block.depth * A_PITCH + block.quad;
        } else {
            let block = b_block(index - A_BLOCKS);
            for (var j = 0u; j < B_LINES; j++) {
                cols[i][j] = col_of(group, first_col + 4u * block.quad + j);
            }
            depths[i] = 4u * block.depth;
            places[i] = A_SLICE + 4u * block.depth * B_PITCH + block.quad;
        }
    }

    var sums: array<array<vec4<f32>, COL_QUADS>, 4u * ROW_QUADS>;
    var blocks: array<mat4x4<f32>, BLOCKS_EACH>;
    let start = split * CHUNK;
    let end = min(start + CHUNK, INNER);
    var slice = 0u;
    // The first round only reads, the last only multiplies.
    for (var k = start; k < end + STEP; k += STEP) {
        if k < end {
            for (var i = 0u; i < BLOCKS_EACH; i++) {
                let index = lane + i * INVOCATIONS;
                if index < A_BLOCKS {
                    blocks[i] = read_a(rows[i], k + depths[i]);
                } else if index < BLOCKS {
                    blocks[i] = read_b(cols[i], k + depths[i]);
                }
            }
        }
        if k > start {
            for (var depth = 0u; depth < STEP; depth++) {
                let a_at = slice + depth * A_PITCH + lane_row;
                let b_at = slice + A_SLICE + depth * B_PITCH + lane_col;
                var b: array<vec4<f32>, COL_QUADS>;
                for (var j = 0u; j < COL_QUADS; j++) {
                    b[j] = slices[b_at + LANE_COLS * j];
                }
                for (var i = 0u; i < ROW_QUADS; i++) {
                    let a = slices[a_at + LANE_ROWS * i];
                    for (var j = 0u; j < COL_QUADS; j++) {
                        sums[4u * i][j] = fma(vec4<f32>(a.x), b[j], sums[4u * i][j]);
                        sums[4u * i + 1u][j] = fma(vec4<f32>(a.y), b[j], sums[4u * i + 1u][j]);
                        sums[4u * i + 2u][j] = fma(vec4<f32>(a.z), b[j], sums[4u * i + 2u][j]);
                        sums[4u * i + 3u][j] = fma(vec4<f32>(a.w), b[j], sums[4u * i + 3u][j]);
                    }
                }
            }
            slice = SLICE - slice;
        }
        if k < end {
            for (var i = 0u; i < BLOCKS_EACH; i++) {
                let index = lane + i * INVOCATIONS;
                let pitch = select(B_PITCH, A_PITCH, index < A_BLOCKS);
                if index < BLOCKS {
                    for (var j = 0u; j < 4u; j++) {
                        slices[slice + places[i] + j * pitch] = blocks[i][j];
                    }
                }
            }
        }
        workgroupBarrier();
    }

    for (var j = 0u; j < COL_QUADS; j++) {
        let col = first_col + 4u * (lane_col + LANE_COLS * j);
        let biases =
            vec4<f32>(col_bias(col), col_bias(col + 1u), col_bias(col + 2u), col_bias(col + 3u));
        for (var i = 0u; i < 4u * ROW_QUADS; i++) {
            let row = first_row + 4u * (lane_row + LANE_ROWS * (i / 4u)) + i % 4u;
            write_quad(split, group, row, col, sums[i][j] + biases + row_bias(group, row));
        }
    }
}
