// cross_entropy with its gradient: logits[ROWS, CLASSES], target, header | loss[ROWS], dlogits. The
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
    let chosen = targets[softmax.row];
    let share = 1.0 / f32(header.count * PER_SAMPLE);
    for (var k = softmax.first; k < CLASSES; k += LANES) {
        let p = exp(logits[softmax.begin + k] - softmax.highest) / softmax.total;
        let q = SMOOTHING / f32(CLASSES) + select(0.0, 1.0 - SMOOTHING, k == chosen);
        dlogits[softmax.begin + k] = (p - q) * share;
    }
}
