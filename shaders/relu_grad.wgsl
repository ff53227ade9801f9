// relu_grad: dy, y | dx. dx = dy where y > 0.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> y: array<StoreY>;
@group(0) @binding(2) var<storage, read_write> dx: array<StoreDx>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&dx)) {
        dx[i] = StoreDx(select(Element(), Element(dy[i]), Element(y[i]) > Element()));
    }
}
