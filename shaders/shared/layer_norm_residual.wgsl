// A layer norm of the sum with a residual, which is kept.

@group(0) @binding(3) var<storage, read> residual: array<StoreResidual>;
@group(0) @binding(4) var<storage, read_write> y: array<StoreY>;
@group(0) @binding(5) var<storage, read_write> mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(7) var<storage, read_write> sums: array<StoreSum>;

// Makes the sum, as it is stored; then `value` reads it, in the same invocation.
fn first_value(i: u32) -> f32 {
    let sum = StoreSum(f32(x[i]) + f32(residual[i]));
    sums[i] = sum;
    return f32(sum);
}

fn value(i: u32) -> f32 {
    return f32(sums[i]);
}
