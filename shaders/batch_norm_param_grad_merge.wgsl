// The second half of batch_norm_param_grad of many elements on a GPU: sums the tiles of a channel, by LANES invocations.

override EPS: f32;
override CHANNELS: u32;
override ROWS: u32;
override PLANE: u32;
override TILES: u32;
override NUMBERS: u32;

@group(0) @binding(0) var<storage, read> partial_products: array<f32>;
@group(0) @binding(1) var<storage, read> partial_gradients: array<f32>;
@group(0) @binding(2) var<storage, read> variance: array<f32>;
@group(0) @binding(3) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(4) var<storage, read_write> dbeta: array<f32>;

struct Sums {
    products: f32,
    gradients: f32,
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let channel = row_of(grid);
    let sums = merged(channel, select(0u, TILES, channel < CHANNELS), grid);
    if channel < CHANNELS && grid.lane % LANES == 0u {
        dgamma[channel] = sums.products / sqrt(variance[channel] + EPS);
        dbeta[channel] = sums.gradients;
    }
}
