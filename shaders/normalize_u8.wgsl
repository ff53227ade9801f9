// normalize_u8: x u8[n, c, ..], scale[c], shift[c] | y[n, c, ..]. y = x scale + shift.
// An invocation converts the four bytes of a word.

override CHANNELS: u32;
override PLANE: u32;

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read> shift: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let word = flat_index(grid);
    if word >= arrayLength(&x) {
        return;
    }
    let bytes = x[word];
    for (var b = 0u; b < 4u; b++) {
        let i = word * 4u + b;
        if i < count_of(arrayLength(&y)) {
            let channel = (i / PLANE) % CHANNELS;
            let byte = f32((bytes >> (8u * b)) & 0xffu);
            y[i] = StoreY(byte * scale[channel] + shift[channel]);
        }
    }
}
