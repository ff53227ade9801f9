// reduce: x[OUTER, LEN, INNER] | y[OUTER, INNER]. The sum over the middle dimension times FACTOR, in
// SPLITS interleaved parts: y is then [SPLITS, OUTER, INNER], which a second pass reduces again.

override OUTER: u32;
override LEN: u32;
override INNER: u32;
override SPLITS: u32 = 1u;
override FACTOR: f32 = 1.0;

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= SPLITS * OUTER * INNER {
        return;
    }
    let inner = i % INNER;
    let outer = (i / INNER) % OUTER;
    var sum = 0.0;
    for (var k = i / (INNER * OUTER); k < LEN; k += SPLITS) {
        sum += f32(x[(outer * LEN + k) * INNER + inner]);
    }
    y[i] = StoreY(FACTOR * sum);
}
