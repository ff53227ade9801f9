// unslice: x[rows, X_LEN] | y[rows, Y_LEN]. Rows of y hold rows of x from START on, and zeros around them.

override X_LEN: u32;
override Y_LEN: u32;
override START: u32;

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= count_of(arrayLength(&y)) {
        return;
    }
    let at = i % Y_LEN;
    if at >= START && at - START < X_LEN {
        y[i] = StoreY(x[i / Y_LEN * X_LEN + at - START]);
    } else {
        y[i] = StoreY(0.0);
    }
}
