// The value of a batch norm before its activation. The gradients that a relu behind the norm gates
// compute it again, by the same expression.

override EPS: f32;

fn scale_of(gamma: f32, variance: f32) -> f32 {
    return gamma / sqrt(variance + EPS);
}

fn norm_of(x: Element, mean: f32, scale: f32, beta: f32) -> Element {
    return (x - mean) * scale + beta;
}
