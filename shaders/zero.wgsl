// Zeros, where an operation has nothing to compute.

@group(0) @binding(0) var<storage, read_write> y: array<YStore>;

override LEN: u32;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let index = flat_index(grid);
    if index < LEN {
        y[index] = YStore();
    }
}
