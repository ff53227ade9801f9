// layer_norm_input_grad: dy, x, gamma[D], mean[ROWS], rstd[ROWS], [residual] | dx. LANES invocations a row.

override ROWS: u32;
override D: u32;

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> rstd: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    // Invocations past the last row keep step with the others, on no elements.
    let row = row_of(grid);
    let end = select(0u, D, row < ROWS);
    let first = grid.lane % LANES;
    let center = mean[min(row, ROWS - 1u)];
    let scale = rstd[min(row, ROWS - 1u)];
    var sum = 0.0;
    var product = 0.0;
    for (var k = first; k < end; k += LANES) {
        let gradient = f32(dy[row * D + k]) * gamma[k];
        sum += gradient;
        product += gradient * (f32(x[row * D + k]) - center) * scale;
    }
    let mean_sum = row_sum(sum, grid) / f32(D);
    let mean_product = row_sum(product, grid) / f32(D);
    for (var k = first; k < end; k += LANES) {
        let normalized = (f32(x[row * D + k]) - center) * scale;
        let gradient = f32(dy[row * D + k]) * gamma[k];
        let result = scale * (gradient - mean_sum - normalized * mean_product);
        dx[row * D + k] = StoreDx(add_residual(result, row * D + k));
    }
}
