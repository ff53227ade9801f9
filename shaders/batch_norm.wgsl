// batch_norm: x[n, c, ..], gamma[c], beta[c], mean[c], var[c], [residual[n, c, ..]] | y.
// y = activation((x - mean) / σ γ + β + residual).

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> gamma: array<f32>;
@group(0) @binding(2) var<storage, read> beta: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> variance: array<f32>;
@group(0) @binding(OUTPUTS) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of(grid);
    if !is_share(share) {
        return;
    }
    let scale = scale_of(gamma[share.channel], variance[share.channel]);
    apply(share, mean[share.channel], scale, beta[share.channel]);
}
