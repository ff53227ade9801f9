// max_pool2d_grad where windows two wide tile the image, as in most networks: dy[planes, oh, ow],
// index | dx[planes, h, w]. Each window belongs to one invocation, which writes it row by row, two
// elements at a time, instead of one for each element that reads the window again.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> dx: array<StorePair>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let o = flat_index(grid);
    if o >= arrayLength(&dx) / KH {
        return;
    }
    let gradient = f32(dy[o]);
    let chosen = index[o];
    let plane = (o / (OH * OW)) * OH * KH * OW;
    let first_row = ((o / OW) % OH) * KH;
    let column = o % OW;
    for (var row = first_row; row < first_row + KH; row++) {
        let at = row * W + 2u * column;
        dx[plane + row * OW + column] = StorePair(select(
            vec2<f32>(),
            vec2<f32>(gradient),
            vec2<u32>(at, at + 1u) == vec2<u32>(chosen),
        ));
    }
}
