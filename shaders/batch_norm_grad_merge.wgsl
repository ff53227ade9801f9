// The second half of batch_norm_grad of many elements on a GPU: each workgroup sums all tiles of a channel, the same in all
// of them, and passes on every PARTS-th tile of dy. The first of a channel leaves the gradients of its parameters.

override PARTS: u32;

@group(0) @binding(6) var<storage, read> header: StepHeader;
@group(0) @binding(7) var<storage, read_write> dx: array<StoreDx>;
@group(0) @binding(8) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(9) var<storage, read_write> dbeta: array<f32>;
@group(0) @binding(10) var<storage, read> partial_products: array<f32>;
@group(0) @binding(11) var<storage, read> partial_gradients: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let group = flat_group(grid);
    let channel = group % CHANNELS;
    let part = group / CHANNELS;
    let norm = norm_of_channel(channel);
    let sums = merged(channel, TILES, grid);
    if part >= PARTS {
        return;
    }
    let of_gamma = sums.products / norm.deviation;
    let through = through_of(norm, of_gamma, sums.gradients);
    for (var first = part * TILE_LEN; first < ROWS * PLANE; first += PARTS * TILE_LEN) {
        for (var k = 0u; k < EACH; k++) {
            let i = first + k * WORKGROUP_SIZE + grid.lane;
            if i < ROWS * PLANE {
                pass_element(place_of(channel, i), i / PLANE, norm, through);
            }
        }
    }
    if part == 0u && grid.lane == 0u {
        dgamma[channel] = of_gamma;
        dbeta[channel] = sums.gradients;
    }
}
