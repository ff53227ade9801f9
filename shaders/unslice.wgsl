// unslice: x[rows, X_LEN] | y[rows, Y_LEN]. Rows of y hold rows of x from START on, and zeros around them.

override X_LEN: u32;
override Y_LEN: u32;
override START: u32;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= arrayLength(&y) {
        return;
    }
    let at = i % Y_LEN;
    if at >= START && at - START < X_LEN {
        y[i] = x[i / Y_LEN * X_LEN + at - START];
    } else {
        y[i] = 0.0;
    }
}
