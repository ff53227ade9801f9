// The first half of batch_norm_param_grad on a GPU: dy, x, gamma[c], beta[c], mean[c], var[c] | sums of
// dy (x - mean), sums of dy. Padded rows carry no gradient, so they need no guard.

// Whether dy comes from behind a relu.
override RELU: bool;

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> x: array<StoreX>;
@group(0) @binding(2) var<storage, read> gamma: array<f32>;
@group(0) @binding(3) var<storage, read> beta: array<f32>;
@group(0) @binding(4) var<storage, read> mean: array<f32>;
@group(0) @binding(5) var<storage, read> variance: array<f32>;
@group(0) @binding(6) var<storage, read_write> products: array<f32>;
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let tile = tile_of(grid);
    let end = end_of(tile, ROWS * PLANE);
    let center = mean[tile.channel];
    let scale = scale_of(gamma[tile.channel], variance[tile.channel]);
    let shift = beta[tile.channel];
    var product = Element();
    var sum = Element();
    for (var k = 0u; k < EACH; k++) {
        let i = tile.first + k * WORKGROUP_SIZE + grid.lane;
        if i < end {
            let place = place_of(tile.channel, i);
            let value = Element(x[place]);
            var gradient = Element(dy[place]);
            if RELU {
                gradient = gate(gradient, norm_of(value, center, scale, shift));
            }
            product += gradient * (value - center);
            sum += gradient;
        }
    }
    let all_products = row_sum(total(product), grid);
    let all = row_sum(total(sum), grid);
    if is_tile(tile) && grid.lane == 0u {
        products[tile.index] = all_products;
        sums[tile.index] = all;
    }
}
