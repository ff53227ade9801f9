// relu: x | y. y = max(x, 0), written so that a NaN stays one.

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&y)) {
        let value = Element(x[i]);
        y[i] = StoreY(select(value, Element(), value < Element()));
    }
}
