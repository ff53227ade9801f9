// batch_norm_param_grad: dy, x, gamma[c], beta[c], mean[c], var[c] | dgamma[c], dbeta[c]. The second
// half: sums the partial sums of a channel, by LANES invocations.

override EPS: f32;

@group(0) @binding(0) var<storage, read> products: array<f32>;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read> variance: array<f32>;
@group(0) @binding(3) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(4) var<storage, read_write> dbeta: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let channel = row_of(grid);
    let first = grid.lane % LANES;
    let shares = select(0u, ROW_SPLITS * PLANE_LANES, channel < CHANNELS);
    var product = 0.0;
    var sum = 0.0;
    for (var share = first; share < shares; share += LANES) {
        let split = share / PLANE_LANES;
        let i = (split * CHANNELS + channel) * PLANE_LANES + share % PLANE_LANES;
        product += products[i];
        sum += sums[i];
    }
    product = row_sum(product, grid);
    sum = row_sum(sum, grid);
    if channel < CHANNELS && first == 0u {
        dgamma[channel] = product / sqrt(variance[channel] + EPS);
        dbeta[channel] = sum;
    }
}
