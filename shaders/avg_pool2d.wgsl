// avg_pool2d: x[planes, h, w] | y[planes, oh, ow]. The padding counts as zeros.

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read_write> y: array<StoreY>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= count_of(arrayLength(&y)) {
        return;
    }
    let plane = (i / (OH * OW)) * H * W;
    let rows = window((i / OW) % OH, KH, SH, PH, H);
    let columns = window(i % OW, KW, SW, PW, W);
    var sum = 0.0;
    for (var row = rows.first; row < rows.end; row++) {
        for (var column = columns.first; column < columns.end; column++) {
            sum += f32(x[plane + row * W + column]);
        }
    }
    y[i] = StoreY(sum / f32(KH * KW));
}
