// soft_target: targets[ROWS], mix, header | t[ROWS, CLASSES]. The probabilities that mixed rows aim at, a
// SMOOTHING share of them spread over all classes; 0 in rows of padding.

override ROWS: u32;
override CLASSES: u32;
override SMOOTHING: f32;

@group(0) @binding(0) var<storage, read> targets: array<u32>;
@group(0) @binding(1) var<storage, read> words: array<f32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> t: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= arrayLength(&t) {
        return;
    }
    let row = i / CLASSES;
    let valid = min(header.count, ROWS);
    if row >= valid {
        t[i] = 0.0;
        return;
    }
    let k = i % CLASSES;
    let own = select(0.0, words[0], targets[row] == k);
    let other = select(0.0, 1.0 - words[0], targets[valid - 1u - row] == k);
    t[i] = SMOOTHING / f32(CLASSES) + (1.0 - SMOOTHING) * (own + other);
}
