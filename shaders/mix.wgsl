// mix: x[ROWS, ROW], mix, header | y. Each valid row is mixed with the one that mirrors it: averaged, or a box
// of the other is pasted into it. Rows of padding are copied.

override ROWS: u32;
override ROW: u32;
override HEIGHT: u32;
override WIDTH: u32;

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> words: array<f32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= count_of(arrayLength(&y)) {
        return;
    }
    let own = f32(x[i]);
    let row = i / ROW;
    let valid = min(header.count, ROWS);
    if row >= valid {
        y[i] = StoreY(own);
        return;
    }
    let other = f32(x[(valid - 1u - row) * ROW + i % ROW]);
    if words[1] == 0.0 {
        y[i] = StoreY(words[0] * own + (1.0 - words[0]) * other);
        return;
    }
    let line = f32((i / WIDTH) % HEIGHT);
    let column = f32(i % WIDTH);
    let is_inside =
        words[2] <= line && line < words[3] && words[4] <= column && column < words[5];
    y[i] = StoreY(select(own, other, is_inside));
}
