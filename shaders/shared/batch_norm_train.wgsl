// What batch_norm_train binds; its outputs begin at OUTPUTS. Needs header.wgsl.

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> gamma: array<f32>;
@group(0) @binding(2) var<storage, read> beta: array<f32>;
@group(0) @binding(3) var<storage, read> header: StepHeader;
@group(0) @binding(OUTPUTS) var<storage, read_write> y: array<StoreY>;
@group(0) @binding(OUTPUTS + 1u) var<storage, read_write> mean: array<f32>;
@group(0) @binding(OUTPUTS + 2u) var<storage, read_write> variance: array<f32>;
@group(0) @binding(OUTPUTS + 3u) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(OUTPUTS + 4u) var<storage, read_write> running_var: array<f32>;
