// A root mean square norm of the sum with a residual, which is kept.

@group(0) @binding(2) var<storage, read> residual: array<StoreResidual>;
@group(0) @binding(3) var<storage, read_write> y: array<StoreY>;
@group(0) @binding(4) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(5) var<storage, read_write> sums: array<StoreSum>;
