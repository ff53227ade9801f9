// An activation applied to a kernel's result before it is written; needs gelu.wgsl before it.

// 0: none, 1: relu, 2: gelu.
override ACTIVATION: u32 = 0u;

fn activate(x: f32) -> f32 {
    if ACTIVATION == 1u {
        // Not max(x, 0), which may swallow a NaN.
        return select(x, 0.0, x < 0.0);
    }
    if ACTIVATION == 2u {
        return x * normal_cdf(x);
    }
    return x;
}
