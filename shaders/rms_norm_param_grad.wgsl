// rms_norm_param_grad: dy, x, rstd[rows] | dgamma[D]. The rows in SPLITS interleaved parts: the result is then
// [SPLITS, D], which `reduce` sums.

override ROWS: u32;
override D: u32;
override SPLITS: u32 = 1u;

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read> rstd: array<f32>;
@group(0) @binding(3) var<storage, read_write> dgamma: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= SPLITS * D {
        return;
    }
    var product = 0.0;
    for (var row = i / D; row < ROWS; row += SPLITS) {
        let at = row * D + i % D;
        product += f32(dy[at]) * f32(x[at]) * rstd[row];
    }
    dgamma[i] = product;
}
