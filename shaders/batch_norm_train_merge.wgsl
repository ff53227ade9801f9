// The second half of batch_norm_train of many elements on a GPU: each workgroup merges the statistics of all tiles of a
// channel, the same in all of them, and applies them to every PARTS-th tile. The first of a channel keeps them.

override PARTS: u32;

@group(0) @binding(OUTPUTS + 5u) var<storage, read> means: array<f32>;
@group(0) @binding(OUTPUTS + 6u) var<storage, read> squares: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let group = flat_group(grid);
    let channel = group % CHANNELS;
    let part = group / CHANNELS;
    let found = merged(channel, min(header.count, ROWS) * PLANE * NUMBERS, grid);
    let scale = scale_of(gamma[channel], found.square / found.count);
    let shift = beta[channel];
    if part >= PARTS {
        return;
    }
    for (var first = part * TILE_LEN; first < ROWS * PLANE; first += PARTS * TILE_LEN) {
        for (var k = 0u; k < EACH; k++) {
            let i = first + k * WORKGROUP_SIZE + grid.lane;
            if i < ROWS * PLANE {
                let place = place_of(channel, i);
                let value = norm_of(Element(x[place]), found.mean, scale, shift);
                y[place] = StoreY(activate_element(add_residual(value, place)));
            }
        }
    }
    if part == 0u && grid.lane == 0u {
        keep(channel, found.mean, found.square, found.count);
    }
}
