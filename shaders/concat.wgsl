// concat: a[rows, A_LEN], b[rows, B_LEN] | y[rows, A_LEN + B_LEN]. What stands before the dimension is
// rows, what stands behind it belongs to the lengths.

override A_LEN: u32;
override B_LEN: u32;

@group(0) @binding(0) var<storage, read> a: array<StoreA>;
@group(0) @binding(1) var<storage, read> b: array<StoreB>;
@group(0) @binding(2) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= count_of(arrayLength(&y)) {
        return;
    }
    let row = i / (A_LEN + B_LEN);
    let at = i % (A_LEN + B_LEN);
    if at < A_LEN {
        y[i] = StoreY(a[row * A_LEN + at]);
    } else {
        y[i] = StoreY(b[row * B_LEN + at - A_LEN]);
    }
}
