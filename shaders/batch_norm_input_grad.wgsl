// batch_norm_input_grad: dy, x, gamma[c], beta[c], mean[c], var[c], dgamma[c], dbeta[c], header | dx.

@group(0) @binding(6) var<storage, read> dgamma: array<f32>;
@group(0) @binding(7) var<storage, read> dbeta: array<f32>;
@group(0) @binding(8) var<storage, read> header: StepHeader;
@group(0) @binding(9) var<storage, read_write> dx: array<StoreDx>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of(grid);
    if !is_share(share) {
        return;
    }
    let norm = norm_of_channel(share.channel);
    pass_share(share, norm, through_of(norm, dgamma[share.channel], dbeta[share.channel]));
}
