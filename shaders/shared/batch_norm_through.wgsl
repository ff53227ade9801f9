// The gradient of a batch norm's input by the sums of its channel; needs batch_norm_gradient.wgsl, PLANE and NUMBERS,
// `header` and `dx`.

// The shares of an element in the gradients of mean and deviation.
struct Through {
    of_mean: f32,
    of_deviation: f32,
}

fn through_of(norm: Norm, dgamma: f32, dbeta: f32) -> Through {
    let count = f32(header.count) * f32(PLANE * NUMBERS);
    return Through(dbeta / count, dgamma / count / norm.deviation);
}

// Rows from header.count on get 0.
fn pass_element(i: u32, row: u32, norm: Norm, through: Through) {
    if row >= header.count {
        dx[i] = StoreDx(Element());
        return;
    }
    let value = Element(x[i]);
    let gradient = gate(Element(dy[i]), value, norm);
    let centered = value - norm.center;
    dx[i] = StoreDx(
        norm.scale * (gradient - through.of_mean - centered * through.of_deviation));
}
