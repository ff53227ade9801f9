// The loss scale of mixed precision.

// The power of two that it starts with.
override LOG2_START: i32;

// The scale, after it moved by so many powers of two; made of its bits, so that it is exact.
fn loss_scale(moved: f32) -> f32 {
    return bitcast<f32>(u32(127 + LOG2_START + i32(moved)) << 23u);
}
