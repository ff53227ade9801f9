// add_relu_grad: a, b, y | dx. dx = a + b where y > 0.

@group(0) @binding(0) var<storage, read> a: array<StoreA>;
@group(0) @binding(1) var<storage, read> b: array<StoreB>;
@group(0) @binding(2) var<storage, read> y: array<StoreY>;
@group(0) @binding(3) var<storage, read_write> dx: array<StoreDx>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&dx)) {
        dx[i] = StoreDx(select(Element(), Element(a[i]) + Element(b[i]), Element(y[i]) > Element()));
    }
}
