// Sums the chunks that a product's inner dimension was cut into, always in the same order, adds what
// the product itself would have added, and puts it where the product would have.

@group(0) @binding(0) var<storage, read> chunks: array<f32>;

const Y_BINDING = 1u;
const BIAS_BINDING = 2u;

override SPLITS: u32;
override GROUPS: u32;
override ROWS: u32;
override COLS: u32;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let index = flat_index(grid);
    let len = GROUPS * ROWS * COLS;
    if index >= len {
        return;
    }
    var sum = 0.0;
    for (var split = 0u; split < SPLITS; split++) {
        sum += chunks[split * len + index];
    }
    let col = index % COLS;
    let row = index / COLS % ROWS;
    let group = index / COLS / ROWS;
    write(0u, group, row, col, sum + row_bias(group, row) + col_bias(col));
}
