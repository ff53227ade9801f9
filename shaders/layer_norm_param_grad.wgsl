// layer_norm_param_grad: dy, x, mean[rows], rstd[rows] | dgamma[D], dbeta[D]. The rows in SPLITS
// interleaved parts: the results are then [SPLITS, D], which `reduce` sums.

override ROWS: u32;
override D: u32;
override SPLITS: u32 = 1u;

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> rstd: array<f32>;
@group(0) @binding(4) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(5) var<storage, read_write> dbeta: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= SPLITS * D {
        return;
    }
    var product = 0.0;
    var sum = 0.0;
    for (var row = i / D; row < ROWS; row += SPLITS) {
        let at = row * D + i % D;
        let gradient = f32(dy[at]);
        product += gradient * (f32(x[at]) - mean[row]) * rstd[row];
        sum += gradient;
    }
    dgamma[i] = product;
    dbeta[i] = sum;
}
