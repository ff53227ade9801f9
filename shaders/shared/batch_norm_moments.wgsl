// The statistics of a channel by a workgroup of its own; needs channels.wgsl, rows.wgsl, and `x`.

struct Moments {
    count: f32,
    mean: f32,
    // The sum of squared deviations from the mean.
    square: f32,
}

// Of the first `rows` rows. The two passes keep the precision that E[x²] - E[x]² would lose, and so do sums by rows.
fn moments_of(share: Share, rows: u32, grid: Grid) -> Moments {
    let count = max(f32(rows * PLANE * NUMBERS), 1.0);
    var sum = Element();
    for (var row = share.first_row; row < rows; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        var of_row = Element();
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            of_row += Element(x[plane + column]);
        }
        sum += of_row;
    }
    let mean = row_sum(total(sum), grid) / count;
    var square = Element();
    for (var row = share.first_row; row < rows; row += ROW_SPLITS) {
        let plane = plane_of(row, share.channel);
        var of_row = Element();
        for (var column = share.first_column; column < PLANE; column += PLANE_LANES) {
            let deviation = Element(x[plane + column]) - mean;
            of_row += deviation * deviation;
        }
        square += of_row;
    }
    return Moments(count, mean, row_sum(total(square), grid));
}
