// The gradient of a root mean square norm's input alone.

@group(0) @binding(4) var<storage, read_write> dx: array<StoreDx>;

fn add_residual(gradient: f32, i: u32) -> f32 {
    return gradient;
}
