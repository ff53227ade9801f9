// batch_norm_input_grad: dy, x, gamma, mean, var, dgamma, dbeta, header | dx. Rows from header.count
// on get 0.

override CHANNELS: u32;
override PLANE: u32;
override EPS: f32;

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> variance: array<f32>;
@group(0) @binding(5) var<storage, read> dgamma: array<f32>;
@group(0) @binding(6) var<storage, read> dbeta: array<f32>;
@group(0) @binding(7) var<storage, read> header: StepHeader;
@group(0) @binding(8) var<storage, read_write> dx: array<StoreDx>;

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
    let rstd = 1.0 / sqrt(variance[c] + EPS);
    let normalized = (f32(x[i]) - mean[c]) * rstd;
    let centered = f32(dy[i]) - (dbeta[c] + normalized * dgamma[c]) / elements;
    dx[i] = StoreDx(gamma[c] * rstd * centered);
}
