// max_pool2d: x[planes, h, w] | y[planes, oh, ow], index. The index is that of the first maximum in
// its plane, row by row; a NaN counts as larger than everything, as in PyTorch.

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read_write> y: array<StoreY>;
@group(0) @binding(2) var<storage, read_write> index: array<u32>;

// By its bits: compilers may assume that x != x never holds.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= count_of(arrayLength(&y)) {
        return;
    }
    let plane = (i / (OH * OW)) * H * W;
    let rows = window((i / OW) % OH, KH, SH, PH, H);
    let columns = window(i % OW, KW, SW, PW, W);
    var best_at = rows.first * W + columns.first;
    var best = f32(x[plane + best_at]);
    for (var row = rows.first; row < rows.end; row++) {
        for (var column = columns.first; column < columns.end; column++) {
            let at = row * W + column;
            let value = f32(x[plane + at]);
            if value > best || (is_nan(value) && !is_nan(best)) {
                best = value;
                best_at = at;
            }
        }
    }
    y[i] = StoreY(best);
    index[i] = best_at;
}
