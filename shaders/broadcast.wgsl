// broadcast: x[outer, INNER] | y[outer, LEN, INNER]. Repeats x along a new dimension, times FACTOR.

override LEN: u32;
override INNER: u32;
override FACTOR: f32;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < arrayLength(&y) {
        y[i] = FACTOR * x[(i / (LEN * INNER)) * INNER + i % INNER];
    }
}
