// Gathers the partial sums of one stretch of gradients beside those of the others, at OFFSET, for
// optimizer_control.

override OFFSET: u32;

@group(0) @binding(0) var<storage, read> partials: array<f32>;
@group(0) @binding(1) var<storage, read_write> gathered: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < arrayLength(&partials) {
        gathered[OFFSET + i] = partials[i];
    }
}
