// loss_scale: dx, control[10] | y. y = dx times the loss scale.

@group(0) @binding(0) var<storage, read> dx: array<StoreX>;
@group(0) @binding(1) var<storage, read> control: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&y)) {
        y[i] = StoreY(loss_scale(control[8]) * Element(dx[i]));
    }
}
