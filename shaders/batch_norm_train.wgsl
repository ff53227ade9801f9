// batch_norm_train: x[n, c, ..], gamma[c], beta[c], header, [residual[n, c, ..]] | y, mean[c], var[c], running_mean[c],
// running_var[c]. A workgroup a channel: it makes the statistics and applies them.

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of_channel(grid);
    let is_here = is_channel(grid);
    let found = moments_of(share, select(0u, min(header.count, ROWS), is_here), grid);
    if !is_here {
        return;
    }
    let scale = scale_of(gamma[share.channel], found.square / found.count);
    apply(share, found.mean, scale, beta[share.channel]);
    if grid.lane == 0u {
        keep(share.channel, found.mean, found.square, found.count);
    }
}
