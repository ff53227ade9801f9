// Sums the partial sums of a channel's tiles, [TILES, CHANNELS], by LANES invocations; needs rows.wgsl, and
// `partial_products` and `partial_gradients`.

// Over the first `tiles` tiles: all or none.
fn merged(channel: u32, tiles: u32, grid: Grid) -> Sums {
    var products = 0.0;
    var gradients = 0.0;
    for (var tile = grid.lane % LANES; tile < tiles; tile += LANES) {
        products += partial_products[tile * CHANNELS + channel];
        gradients += partial_gradients[tile * CHANNELS + channel];
    }
    return Sums(row_sum(products, grid), row_sum(gradients, grid));
}
