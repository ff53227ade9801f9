// batch_norm_param_grad: dy, x, gamma[c], beta[c], mean[c], var[c] | dgamma[c], dbeta[c]. A workgroup a channel.

@group(0) @binding(6) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(7) var<storage, read_write> dbeta: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of_channel(grid);
    let is_here = is_channel(grid);
    let norm = norm_of_channel(share.channel);
    let sums = sums_of(share, norm, select(0u, ROWS, is_here), grid);
    if is_here && grid.lane == 0u {
        dgamma[share.channel] = sums.products / norm.deviation;
        dbeta[share.channel] = sums.gradients;
    }
}
