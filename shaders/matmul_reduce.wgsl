// Sums the chunks that a product's inner dimension was cut into, always in the same order, and adds
// what the product itself would have added.

@group(0) @binding(0) var<storage, read> chunks: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

override SPLITS: u32;
// Elements of a chunk's result, and of a row of it.
override LEN: u32;
override COLS: u32;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let index = flat_index(grid);
    if index >= LEN {
        return;
    }
    var sum = 0.0;
    for (var split = 0u; split < SPLITS; split++) {
        sum += chunks[split * LEN + index];
    }
    y[index] = activate(sum + bias_at(index % COLS));
}
