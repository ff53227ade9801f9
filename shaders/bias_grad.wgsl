// bias_grad: dy[n, c, ..] | db[c]. The sum over all but the second dimension, in one pass or, for many
// elements a channel, in two: the second sums the partial results of the first.

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read_write> db: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of(grid);
    if !is_share(share) {
        return;
    }
    var sum = Element();
    for (var row = share.first_row; row < ROWS; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            sum += Element(dy[plane + column]);
        }
    }
    db[share.index] = total(sum);
}
