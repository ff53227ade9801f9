// scale: x | y. y = FACTOR x.

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read_write> y: array<Element>;

override FACTOR: f32;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < arrayLength(&y) {
        y[i] = FACTOR * x[i];
    }
}
