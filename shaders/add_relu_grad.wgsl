// add_relu_grad: a, b, y | dx. dx = a + b where y > 0.

@group(0) @binding(0) var<storage, read> a: array<Element>;
@group(0) @binding(1) var<storage, read> b: array<Element>;
@group(0) @binding(2) var<storage, read> y: array<Element>;
@group(0) @binding(3) var<storage, read_write> dx: array<Element>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < arrayLength(&dx) {
        dx[i] = select(Element(), a[i] + b[i], y[i] > Element());
    }
}
