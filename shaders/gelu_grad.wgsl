// gelu_grad: dy, x | dx. dx = dy (Φ(x) + x φ(x)).

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read_write> dx: array<StoreDx>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&dx)) {
        let value = Element(x[i]);
        let slope = cdf_of(value) + value * density_of(value);
        dx[i] = StoreDx(Element(dy[i]) * slope);
    }
}
