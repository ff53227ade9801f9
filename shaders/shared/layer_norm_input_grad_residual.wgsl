// The gradient of a layer norm's input, added to what comes along a residual.

@group(0) @binding(5) var<storage, read> residual: array<StoreResidual>;
@group(0) @binding(6) var<storage, read_write> dx: array<StoreDx>;

fn add_residual(gradient: f32, i: u32) -> f32 {
    return gradient + f32(residual[i]);
}
