// batch_norm_input_grad: dy, x, gamma, beta, mean, var, dgamma, dbeta, header | dx. Rows from
// header.count on get 0.

override CHANNELS: u32;
override PLANE: u32;
// Whether dy comes from behind a relu.
override RELU: bool;

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> beta: array<f32>;
@group(0) @binding(4) var<storage, read> mean: array<f32>;
@group(0) @binding(5) var<storage, read> variance: array<f32>;
@group(0) @binding(6) var<storage, read> dgamma: array<f32>;
@group(0) @binding(7) var<storage, read> dbeta: array<f32>;
@group(0) @binding(8) var<storage, read> header: StepHeader;
@group(0) @binding(9) var<storage, read_write> dx: array<StoreDx>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= count_of(arrayLength(&dx)) {
        return;
    }
    if i / (CHANNELS * PLANE) >= header.count {
        dx[i] = StoreDx(0.0);
        return;
    }
    let c = (i / PLANE) % CHANNELS;
    let elements = f32(header.count) * f32(PLANE);
    let value = f32(x[i]);
    let scale = scale_of(gamma[c], variance[c]);
    let passes = !RELU || norm_of(value, mean[c], scale, beta[c]) > 0.0;
    let gradient = select(0.0, f32(dy[i]), passes);
    let normalized = (value - mean[c]) / sqrt(variance[c] + EPS);
    dx[i] = StoreDx(scale * (gradient - (dbeta[c] + normalized * dgamma[c]) / elements));
}
