// The first half of batch_norm_stats on a GPU: x[n, c, ..], header | means, squares. Of its tile of a
// channel's valid elements each workgroup finds the mean, and then the sum of squared deviations from
// it. The elements are read once and stay in registers.

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> header: StepHeader;
@group(0) @binding(2) var<storage, read_write> means: array<f32>;
@group(0) @binding(3) var<storage, read_write> squares: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let tile = tile_of(grid);
    let end = end_of(tile, min(header.count, ROWS) * PLANE);
    var values: array<Element, EACH>;
    var sum = Element();
    for (var k = 0u; k < EACH; k++) {
        let i = tile.first + k * WORKGROUP_SIZE + grid.lane;
        if i < end {
            values[k] = Element(x[place_of(tile.channel, i)]);
            sum += values[k];
        }
    }
    let count = NUMBERS * (end - min(tile.first, end));
    let mean = row_sum(total(sum), grid) / f32(max(count, 1u));
    var square = Element();
    for (var k = 0u; k < EACH; k++) {
        if tile.first + k * WORKGROUP_SIZE + grid.lane < end {
            let deviation = values[k] - mean;
            square += deviation * deviation;
        }
    }
    let all = row_sum(total(square), grid);
    if is_tile(tile) && grid.lane == 0u {
        means[tile.index] = mean;
        squares[tile.index] = all;
    }
}
