// The first half of the gradients of many elements on a GPU: dy, x, gamma[c], beta[c], mean[c], var[c] | sums of
// dy (x - mean), sums of dy, each of a tile. Padded rows carry no gradient, so they need no guard.

@group(0) @binding(6) var<storage, read_write> partial_products: array<f32>;
@group(0) @binding(7) var<storage, read_write> partial_gradients: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let tile = tile_of(grid);
    let end = end_of(tile, ROWS * PLANE);
    let norm = norm_of_channel(tile.channel);
    var products = Element();
    var gradients = Element();
    for (var k = 0u; k < EACH; k++) {
        let i = tile.first + k * WORKGROUP_SIZE + grid.lane;
        if i < end {
            let place = place_of(tile.channel, i);
            let value = Element(x[place]);
            let gradient = gate(Element(dy[place]), value, norm);
            products += gradient * (value - norm.center);
            gradients += gradient;
        }
    }
    let all_products = row_sum(total(products), grid);
    let all_gradients = row_sum(total(gradients), grid);
    if is_tile(tile) && grid.lane == 0u {
        partial_products[tile.index] = all_products;
        partial_gradients[tile.index] = all_gradients;
    }
}
