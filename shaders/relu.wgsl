// relu: x | y. y = max(x, 0), written so that a NaN stays one.

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < arrayLength(&y) {
        y[i] = select(x[i], Element(), x[i] < Element());
    }
}
