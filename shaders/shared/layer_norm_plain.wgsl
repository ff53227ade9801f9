// A layer norm without a residual.

@group(0) @binding(3) var<storage, read_write> y: array<StoreY>;
@group(0) @binding(4) var<storage, read_write> mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>;

fn first_value(i: u32) -> f32 {
    return f32(x[i]);
}

fn value(i: u32) -> f32 {
    return f32(x[i]);
}
