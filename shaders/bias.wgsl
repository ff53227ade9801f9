// bias: x[n, c, ..], bias[c] | y[n, c, ..]. y = x + bias.

override CHANNELS: u32;
override PLANE: u32;

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&y)) {
        y[i] = StoreY(f32(x[i]) + bias[(i / PLANE) % CHANNELS]);
    }
}
