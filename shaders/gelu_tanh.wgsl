// gelu_tanh: x | y. y = x σ(2u), see shared/gelu_tanh.wgsl.

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&y)) {
        let value = Element(x[i]);
        y[i] = StoreY(value * gelu_tanh_gate(value));
    }
}
