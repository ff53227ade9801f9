// batch_norm_stats: x[n, c, ..], header | mean[c], var[c], running_mean[c], running_var[c]. The second
// half: merges the partial means and squared deviations of a channel (Chan, Golub and LeVeque, 1979)
// and moves the running statistics by MOMENTUM, the variance towards its unbiased estimate.

override MOMENTUM: f32;

@group(0) @binding(0) var<storage, read> means: array<f32>;
@group(0) @binding(1) var<storage, read> squares: array<f32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> mean: array<f32>;
@group(0) @binding(4) var<storage, read_write> variance: array<f32>;
@group(0) @binding(5) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> running_var: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let channel = flat_index(grid);
    if channel >= CHANNELS {
        return;
    }
    let rows = min(header.count, ROWS);
    var count = 0.0;
    var mean_so_far = 0.0;
    var square = 0.0;
    for (var split = 0u; split < min(ROW_SPLITS, rows); split++) {
        let split_rows = (rows - split + ROW_SPLITS - 1u) / ROW_SPLITS;
        for (var lane = 0u; lane < PLANE_LANES; lane++) {
            // How many numbers this share had: at least one.
            let columns = (PLANE - lane + PLANE_LANES - 1u) / PLANE_LANES;
            let share = f32(split_rows * columns * NUMBERS);
            let i = (split * CHANNELS + channel) * PLANE_LANES + lane;
            let delta = means[i] - mean_so_far;
            let total = count + share;
            mean_so_far += delta * share / total;
            square += squares[i] + delta * delta * count * share / total;
            count = total;
        }
    }
    mean[channel] = mean_so_far;
    variance[channel] = square / max(count, 1.0);
    let unbiased = square / max(count - 1.0, 1.0);
    // Activations that overflow skip the update of the parameters; what they would leave here stays. By
    // its bits: compilers may assume that no value is infinite or NaN.
    if (bitcast<u32>(square) & 0x7f800000u) != 0x7f800000u {
        running_mean[channel] += MOMENTUM * (mean_so_far - running_mean[channel]);
        running_var[channel] += MOMENTUM * (unbiased - running_var[channel]);
    }
}
