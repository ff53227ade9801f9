// An activation applied to a kernel's result before it is written; needs gelu.wgsl before it.

// 0: none, 1: relu, 2: gelu, 3: gelu by a tanh, see gelu_tanh.wgsl.
override ACTIVATION: u32 = 0u;

fn activate(x: f32) -> f32 {
    if ACTIVATION == 1u {
        // Not max(x, 0), which may swallow a NaN.
        return select(x, 0.0, x < 0.0);
    }
    if ACTIVATION == 2u {
        return x * normal_cdf(x);
    }
    if ACTIVATION == 3u {
        let u = 0.7978845608 * (x + 0.044715 * x * x * x);
        return x / (1.0 + exp(min(-2.0 * u, 80.0)));
    }
    return x;
}
