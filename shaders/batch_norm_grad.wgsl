// batch_norm_grad: dy, x, gamma[c], beta[c], mean[c], var[c], header | dx, dgamma[c], dbeta[c]. A workgroup a channel: it
// makes the gradients of its parameters and passes the rest of dy on.

@group(0) @binding(6) var<storage, read> header: StepHeader;
@group(0) @binding(7) var<storage, read_write> dx: array<StoreDx>;
@group(0) @binding(8) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(9) var<storage, read_write> dbeta: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of_channel(grid);
    let is_here = is_channel(grid);
    let norm = norm_of_channel(share.channel);
    let sums = sums_of(share, norm, select(0u, ROWS, is_here), grid);
    if !is_here {
        return;
    }
    let of_gamma = sums.products / norm.deviation;
    pass_share(share, norm, through_of(norm, of_gamma, sums.gradients));
    if grid.lane == 0u {
        dgamma[share.channel] = of_gamma;
        dbeta[share.channel] = sums.gradients;
    }
}
