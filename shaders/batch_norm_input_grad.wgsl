// batch_norm_input_grad: dy, x, gamma, beta, mean, var, dgamma, dbeta, header | dx. Rows from
// header.count on get 0.

// Whether dy comes from behind a relu.
override RELU: bool;

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> beta: array<f32>;
@group(0) @binding(4) var<storage, read> mean: array<f32>;
@group(0) @binding(5) var<storage, read> variance: array<f32>;
@group(0) @binding(6) var<storage, read> dgamma: array<f32>;
@group(0) @binding(7) var<storage, read> dbeta: array<f32>;
@group(0) @binding(8) var<storage, read> header: StepHeader;
@group(0) @binding(9) var<storage, read_write> dx: array<StoreDx>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of(grid);
    if !is_share(share) {
        return;
    }
    let center = mean[share.channel];
    let scale = scale_of(gamma[share.channel], variance[share.channel]);
    let shift = beta[share.channel];
    let count = f32(header.count) * f32(PLANE * NUMBERS);
    // The shares of an element in the gradients of mean and deviation.
    let of_mean = dbeta[share.channel] / count;
    let of_deviation = dgamma[share.channel] / count / sqrt(variance[share.channel] + EPS);
    for (var row = share.first_row; row < ROWS; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            let i = plane + column;
            if row >= header.count {
                dx[i] = StoreDx(Element());
                continue;
            }
            let value = Element(x[i]);
            var gradient = Element(dy[i]);
            if RELU {
                gradient = gate(gradient, norm_of(value, center, scale, shift));
            }
            dx[i] = StoreDx(scale * (gradient - of_mean - (value - center) * of_deviation));
        }
    }
}
