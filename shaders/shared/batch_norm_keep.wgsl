// Where batch_norm_stats leaves the statistics of a channel; needs header.wgsl.

override MOMENTUM: f32;

@group(0) @binding(0) var<storage, read> means: array<f32>;
@group(0) @binding(1) var<storage, read> squares: array<f32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> mean: array<f32>;
@group(0) @binding(4) var<storage, read_write> variance: array<f32>;
@group(0) @binding(5) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> running_var: array<f32>;

// From the mean, the sum of squared deviations and the number of elements: the running statistics move
// by MOMENTUM, the variance towards its unbiased estimate.
fn keep(channel: u32, center: f32, square: f32, count: f32) {
    mean[channel] = center;
    variance[channel] = square / max(count, 1.0);
    let unbiased = square / max(count - 1.0, 1.0);
    // Activations that overflow skip the update of the parameters; what they would leave here stays. By
    // its bits: compilers may assume that no value is infinite or NaN.
    if (bitcast<u32>(square) & 0x7f800000u) != 0x7f800000u {
        running_mean[channel] += MOMENTUM * (center - running_mean[channel]);
        running_var[channel] += MOMENTUM * (unbiased - running_var[channel]);
    }
}
