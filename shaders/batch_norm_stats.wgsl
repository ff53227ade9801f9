// batch_norm_stats: x[n, c, ..], header | mean[c], var[c], running_mean[c], running_var[c]. A workgroup a channel.

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> header: StepHeader;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> variance: array<f32>;
@group(0) @binding(4) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> running_var: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let share = share_of_channel(grid);
    let is_here = is_channel(grid);
    let found = moments_of(share, select(0u, min(header.count, ROWS), is_here), grid);
    if is_here && grid.lane == 0u {
        keep(share.channel, found.mean, found.square, found.count);
    }
}
