// batch_norm: x[n, c, ..], gamma[c], beta[c], mean[c], var[c] | y. y = activation((x - mean) / σ γ + β).

override CHANNELS: u32;
override PLANE: u32;
override EPS: f32;

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> gamma: array<f32>;
@group(0) @binding(2) var<storage, read> beta: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> variance: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= count_of(arrayLength(&y)) {
        return;
    }
    let c = (i / PLANE) % CHANNELS;
    let factor = gamma[c] / sqrt(variance[c] + EPS);
    y[i] = StoreY(activate((f32(x[i]) - mean[c]) * factor + beta[c]));
}
