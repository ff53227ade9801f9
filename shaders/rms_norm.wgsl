// rms_norm: x[ROWS, D], gamma[D] | y, rstd[ROWS]. LANES invocations a row.

override ROWS: u32;
override D: u32;
override EPS: f32;

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> gamma: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<StoreY>;
@group(0) @binding(3) var<storage, read_write> rstd: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    // Invocations past the last row keep step with the others, on no elements.
    let row = row_of(grid);
    let end = select(0u, D, row < ROWS);
    let first = grid.lane % LANES;
    var square = 0.0;
    for (var k = first; k < end; k += LANES) {
        let value = f32(x[row * D + k]);
        square += value * value;
    }
    let scale = 1.0 / sqrt(row_sum(square, grid) / f32(D) + EPS);
    for (var k = first; k < end; k += LANES) {
        y[row * D + k] = StoreY(f32(x[row * D + k]) * scale * gamma[k]);
    }
    if row < ROWS && first == 0u {
        rstd[row] = scale;
    }
}
