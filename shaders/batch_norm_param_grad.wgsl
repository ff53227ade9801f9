// batch_norm_param_grad: dy, x, gamma[c], beta[c], mean[c], var[c] | dgamma[c], dbeta[c]. The second
// half: sums the partial sums of a channel.

override EPS: f32;

@group(0) @binding(0) var<storage, read> products: array<f32>;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read> variance: array<f32>;
@group(0) @binding(3) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(4) var<storage, read_write> dbeta: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let channel = flat_index(grid);
    if channel >= CHANNELS {
        return;
    }
    var product = 0.0;
    var sum = 0.0;
    for (var split = 0u; split < ROW_SPLITS; split++) {
        for (var lane = 0u; lane < PLANE_LANES; lane++) {
            let i = (split * CHANNELS + channel) * PLANE_LANES + lane;
            product += products[i];
            sum += sums[i];
        }
    }
    dgamma[channel] = product / sqrt(variance[channel] + EPS);
    dbeta[channel] = sum;
}
