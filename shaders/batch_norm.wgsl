// batch_norm: x[n, c, ..], gamma[c], beta[c], mean[c], var[c], [residual[n, c, ..]] | y.
// y = activation((x - mean) / σ γ + β + residual).

override CHANNELS: u32;
override PLANE: u32;

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> gamma: array<f32>;
@group(0) @binding(2) var<storage, read> beta: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> variance: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= count_of(arrayLength(&y)) {
        return;
    }
    let c = (i / PLANE) % CHANNELS;
    let value = norm_of(f32(x[i]), mean[c], scale_of(gamma[c], variance[c]), beta[c]);
    y[i] = StoreY(activate(add_residual(value, i)));
}
