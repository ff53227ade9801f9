// Sums the chunks that a product's inner dimension was cut into, always in the same order.

@group(0) @binding(0) var<storage, read> chunks: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

override SPLITS: u32;
override LEN: u32;

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
    y[index] = sum;
}
