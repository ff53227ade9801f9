// stream_copy: x | y. y = x: what the memory can carry, in the order that suits it best.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let stride = WORKGROUP_SIZE * grid.groups.x * grid.groups.y;
    for (var i = flat_index(grid); i < arrayLength(&y); i += stride) {
        y[i] = x[i];
    }
}
