// What cross_entropy and cross_entropy_grad share: softmax and cross-entropy of a row of logits
// against a class, a SMOOTHING share of which is spread over all classes. Needs rows.wgsl, header.wgsl.

override ROWS: u32;
override CLASSES: u32;
override SMOOTHING: f32;
// Rows of each sample, all of which are valid or none.
override PER_SAMPLE: u32 = 1u;
// Rows of the batch before these.
override FIRST_ROW: u32 = 0u;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;

struct Softmax {
    row: u32,
    // Where the row begins.
    begin: u32,
    // The first element that is this invocation's.
    first: u32,
    is_valid: bool,
    highest: f32,
    // The sum of exponentials over the row.
    total: f32,
}

// Writes the loss of a row and returns its softmax.
fn row_loss(grid: Grid) -> Softmax {
    let row = row_of(grid);
    let is_valid = row < ROWS && FIRST_ROW + row < header.count * PER_SAMPLE;
    let begin = row * CLASSES;
    let end = select(0u, CLASSES, is_valid);
    let first = grid.lane % LANES;
    var highest = -3.4028235e38;
    for (var k = first; k < end; k += LANES) {
        highest = max(highest, logits[begin + k]);
    }
    highest = row_max(highest, grid);
    var total = 0.0;
    var sum = 0.0;
    for (var k = first; k < end; k += LANES) {
        let logit = logits[begin + k] - highest;
        total += exp(logit);
        sum += logit;
    }
    total = row_sum(total, grid);
    sum = row_sum(sum, grid);
    if row < ROWS && first == 0u {
        loss[row] = 0.0;
        if is_valid {
            let chosen = logits[begin + min(targets[row], CLASSES - 1u)] - highest;
            loss[row] = log(total) - (1.0 - SMOOTHING) * chosen - SMOOTHING * sum / f32(CLASSES);
        }
    }
    return Softmax(row, begin, first, is_valid, highest, total);
}
