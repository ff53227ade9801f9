// avg_pool2d_grad: dy[planes, oh, ow] | dx[planes, h, w]. An element gathers from all windows over it.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read_write> dx: array<StoreDx>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= count_of(arrayLength(&dx)) {
        return;
    }
    let at = i % (H * W);
    let plane = (i / (H * W)) * OH * OW;
    let rows = windows_over(at / W, KH, SH, PH, OH);
    let columns = windows_over(at % W, KW, SW, PW, OW);
    var sum = 0.0;
    for (var row = rows.first; row < rows.end; row++) {
        for (var column = columns.first; column < columns.end; column++) {
            sum += f32(dy[plane + row * OW + column]);
        }
    }
    dx[i] = StoreDx(sum / f32(KH * KW));
}
