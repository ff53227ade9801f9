// Merges the means and squared deviations of a channel's tiles, [TILES, CHANNELS], by LANES invocations (Chan, Golub and
// LeVeque, 1979); needs rows.wgsl, and `means` and `squares`.

// Numbers of a tile.
override TILE_NUMBERS: u32;

struct Moments {
    count: f32,
    mean: f32,
    // The sum of squared deviations from the mean.
    square: f32,
}

// How many of the numbers of a channel are in a tile.
fn numbers_of(tile: u32, numbers: u32) -> f32 {
    return f32(min(numbers - tile * TILE_NUMBERS, TILE_NUMBERS));
}

// Of so many valid numbers of a channel, which stand in the first tiles.
fn merged(channel: u32, numbers: u32, grid: Grid) -> Moments {
    let first = grid.lane % LANES;
    let tiles = min(TILES, (numbers + TILE_NUMBERS - 1u) / TILE_NUMBERS);
    var sum = 0.0;
    for (var tile = first; tile < tiles; tile += LANES) {
        sum += numbers_of(tile, numbers) * means[tile * CHANNELS + channel];
    }
    let count = max(f32(numbers), 1.0);
    let center = row_sum(sum, grid) / count;
    var square = 0.0;
    for (var tile = first; tile < tiles; tile += LANES) {
        let deviation = means[tile * CHANNELS + channel] - center;
        square += squares[tile * CHANNELS + channel]
            + numbers_of(tile, numbers) * deviation * deviation;
    }
    return Moments(count, center, row_sum(square, grid));
}
