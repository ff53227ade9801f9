// soft_cross_entropy with its gradient: logits[ROWS, CLASSES], t, header | loss[ROWS], dlogits. The
// gradient is that of the mean over the valid rows; rows of padding get 0.

@group(0) @binding(4) var<storage, read_write> dlogits: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let softmax = row_loss(grid);
    if softmax.row >= ROWS {
        return;
    }
    if !softmax.is_valid {
        for (var k = softmax.first; k < CLASSES; k += LANES) {
            dlogits[softmax.begin + k] = 0.0;
        }
        return;
    }
    let share = 1.0 / f32(header.count);
    for (var k = softmax.first; k < CLASSES; k += LANES) {
        let i = softmax.begin + k;
        let p = exp(logits[i] - softmax.highest) / softmax.total;
        dlogits[i] = (p * softmax.weight - probabilities[i]) * share;
    }
}
