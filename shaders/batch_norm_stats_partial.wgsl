// The first half of batch_norm_stats: x[n, c, ..], header | means, squares. Of its share of a
// channel's valid elements each invocation finds the mean, and then the sum of squared deviations
// from it: the two passes over few elements keep the precision that E[x²] - E[x]² would lose.

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> header: StepHeader;
@group(0) @binding(2) var<storage, read_write> means: array<f32>;
@group(0) @binding(3) var<storage, read_write> squares: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of(grid);
    if !is_share(share) {
        return;
    }
    let rows = min(header.count, ROWS);
    var sum = Element();
    var count = 0u;
    for (var row = share.first_row; row < rows; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            sum += Element(x[plane + column]);
            count += NUMBERS;
        }
    }
    let mean = total(sum) / f32(max(count, 1u));
    var square = Element();
    for (var row = share.first_row; row < rows; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            let deviation = Element(x[plane + column]) - mean;
            square += deviation * deviation;
        }
    }
    means[share.index] = mean;
    squares[share.index] = total(square);
}
