// The first half of bias_grad on a GPU: dy[n, c, ..] | sums.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let tile = tile_of(grid);
    let end = end_of(tile, ROWS * PLANE);
    var sum = Element();
    for (var k = 0u; k < EACH; k++) {
        let i = tile.first + k * WORKGROUP_SIZE + grid.lane;
        if i < end {
            sum += Element(dy[place_of(tile.channel, i)]);
        }
    }
    let all = row_sum(total(sum), grid);
    if is_tile(tile) && grid.lane == 0u {
        sums[tile.index] = all;
    }
}
