// rms_norm: x[ROWS, D], gamma[D], [residual] | y, rstd[ROWS], [sum]. LANES invocations a row.

override ROWS: u32;
override D: u32;
override EPS: f32;

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> gamma: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    // Invocations past the last row keep step with the others, on no elements.
    let row = row_of(grid);
    let end = select(0u, D, row < ROWS);
    let first = grid.lane % LANES;
    var square = 0.0;
    for (var k = first; k < end; k += LANES) {
        let number = first_value(row * D + k);
        square += number * number;
    }
    let scale = 1.0 / sqrt(row_sum(square, grid) / f32(D) + EPS);
    for (var k = first; k < end; k += LANES) {
        y[row * D + k] = StoreY(value(row * D + k) * scale * gamma[k]);
    }
    if row < ROWS && first == 0u {
        rstd[row] = scale;
    }
}
