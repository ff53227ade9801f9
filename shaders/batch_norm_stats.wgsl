// batch_norm_stats: x[n, c, ..], header | mean[c], var[c], running_mean[c], running_var[c]. The second
// half: merges the partial means and squared deviations of a channel (Chan, Golub and LeVeque, 1979).

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let channel = flat_index(grid);
    if channel >= CHANNELS {
        return;
    }
    let rows = min(header.count, ROWS);
    var count = 0.0;
    var mean_so_far = 0.0;
    var square = 0.0;
    for (var split = 0u; split < min(ROW_SPLITS, rows); split++) {
        let split_rows = (rows - split + ROW_SPLITS - 1u) / ROW_SPLITS;
        for (var lane = 0u; lane < PLANE_LANES; lane++) {
            // How many numbers this share had: at least one.
            let columns = (PLANE - lane + PLANE_LANES - 1u) / PLANE_LANES;
            let share = f32(split_rows * columns * NUMBERS);
            let i = (split * CHANNELS + channel) * PLANE_LANES + lane;
            let delta = means[i] - mean_so_far;
            let total = count + share;
            mean_so_far += delta * share / total;
            square += squares[i] + delta * delta * count * share / total;
            count = total;
        }
    }
    keep(channel, mean_so_far, square, count);
}
