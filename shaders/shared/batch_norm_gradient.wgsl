// What the gradients of a batch norm begin with; needs batch_norm_value.wgsl.

// Whether dy comes from behind a relu.
override RELU: bool;

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> beta: array<f32>;
@group(0) @binding(4) var<storage, read> mean: array<f32>;
@group(0) @binding(5) var<storage, read> variance: array<f32>;

// The norm of a channel.
struct Norm {
    center: f32,
    deviation: f32,
    scale: f32,
    shift: f32,
}

fn norm_of_channel(channel: u32) -> Norm {
    let scale = scale_of(gamma[channel], variance[channel]);
    return Norm(mean[channel], sqrt(variance[channel] + EPS), scale, beta[channel]);
}

// Sums over a channel.
struct Sums {
    // Of dy (x - mean).
    products: f32,
    // Of dy.
    gradients: f32,
}

// What a relu behind the norm, if there is one, lets through of a gradient.
fn gate(gradient: Element, value: Element, norm: Norm) -> Element {
    if !RELU {
        return gradient;
    }
    let y = norm_of(value, norm.center, norm.scale, norm.shift);
    return select(Element(), gradient, y > Element());
}
