// The second half of batch_norm_stats on a GPU: merges the means and squared deviations of a channel's
// tiles, [TILES, CHANNELS], by LANES invocations a channel.

override CHANNELS: u32;
override ROWS: u32;
override PLANE: u32;
override TILES: u32;
override NUMBERS: u32;
// Numbers of a tile.
override TILE_NUMBERS: u32;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let channel = row_of(grid);
    let first = grid.lane % LANES;
    let numbers = min(header.count, ROWS) * PLANE * NUMBERS;
    let tiles = select(0u, min(TILES, (numbers + TILE_NUMBERS - 1u) / TILE_NUMBERS), channel < CHANNELS);
    var sum = 0.0;
    for (var tile = first; tile < tiles; tile += LANES) {
        let count = min(numbers - tile * TILE_NUMBERS, TILE_NUMBERS);
        sum += f32(count) * means[tile * CHANNELS + channel];
    }
    let all = max(f32(numbers), 1.0);
    let center = row_sum(sum, grid) / all;
    var square = 0.0;
    for (var tile = first; tile < tiles; tile += LANES) {
        let count = min(numbers - tile * TILE_NUMBERS, TILE_NUMBERS);
        let deviation = means[tile * CHANNELS + channel] - center;
        square += squares[tile * CHANNELS + channel] + f32(count) * deviation * deviation;
    }
    square = row_sum(square, grid);
    if channel < CHANNELS && first == 0u {
        keep(channel, center, square, all);
    }
}
