// What a norm of a sum with a residual norms; `layer_norm_residual` and `rms_norm_residual` bind it.

// Makes the sum, as it is stored; then `value` reads it, in the same invocation.
fn first_value(i: u32) -> f32 {
    let sum = StoreSum(f32(x[i]) + f32(residual[i]));
    sums[i] = sum;
    return f32(sum);
}

fn value(i: u32) -> f32 {
    return f32(sums[i]);
}
