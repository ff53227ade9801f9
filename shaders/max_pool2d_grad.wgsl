// max_pool2d_grad: dy[planes, oh, ow], index | dx[planes, h, w]. An element gathers from the windows
// that chose it, so nothing is written twice.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> dx: array<StoreDx>;

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
            let o = plane + row * OW + column;
            if index[o] == at {
                sum += f32(dy[o]);
            }
        }
    }
    dx[i] = StoreDx(sum);
}
