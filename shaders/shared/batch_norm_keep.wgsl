// Where the statistics of a channel are left; needs `mean`, `variance`, `running_mean` and `running_var`.

override MOMENTUM: f32;

// From the mean, the sum of squared deviations and the number of elements: the running statistics move
// by MOMENTUM, the variance towards its unbiased estimate.
fn keep(channel: u32, center: f32, square: f32, count: f32) {
    mean[channel] = center;
    variance[channel] = square / count;
    let unbiased = square / max(count - 1.0, 1.0);
    // Activations that overflow skip the update of the parameters; what they would leave here stays. By
    // its bits: compilers may assume that no value is infinite or NaN.
    if (bitcast<u32>(square) & 0x7f800000u) != 0x7f800000u {
        running_mean[channel] += MOMENTUM * (center - running_mean[channel]);
        running_var[channel] += MOMENTUM * (unbiased - running_var[channel]);
    }
}
