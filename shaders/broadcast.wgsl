// broadcast: x[outer, INNER] | y[outer, LEN, INNER]. Repeats x along a new dimension, times FACTOR.

override LEN: u32;
override INNER: u32;
override FACTOR: f32;

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&y)) {
        y[i] = StoreY(FACTOR * f32(x[(i / (LEN * INNER)) * INNER + i % INNER]));
    }
}
