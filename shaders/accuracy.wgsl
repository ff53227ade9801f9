// accuracy: logits[rows, CLASSES], target, header | correct[rows]. 1 where the first maximum is the
// target; 0 for padding.

override CLASSES: u32;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> correct: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let row = flat_index(grid);
    if row >= arrayLength(&correct) {
        return;
    }
    var best = 0u;
    for (var k = 1u; k < CLASSES; k++) {
        if logits[row * CLASSES + k] > logits[row * CLASSES + best] {
            best = k;
        }
    }
    correct[row] = select(0.0, 1.0, row < header.count && best == targets[row]);
}
