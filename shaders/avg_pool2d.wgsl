// avg_pool2d: x[planes, h, w] | y[planes, oh, ow]. The padding counts as zeros.

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= arrayLength(&y) {
        return;
    }
    let plane = (i / (OH * OW)) * H * W;
    let rows = window((i / OW) % OH, KH, SH, PH, H);
    let columns = window(i % OW, KW, SW, PW, W);
    var sum = 0.0;
    for (var row = rows.first; row < rows.end; row++) {
        for (var column = columns.first; column < columns.end; column++) {
            sum += x[plane + row * W + column];
        }
    }
    y[i] = sum / f32(KH * KW);
}
