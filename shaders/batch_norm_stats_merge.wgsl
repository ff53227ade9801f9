// The second half of batch_norm_stats of many elements on a GPU: merges the tiles of a channel, by LANES invocations.

override CHANNELS: u32;
override ROWS: u32;
override PLANE: u32;
override TILES: u32;
override NUMBERS: u32;

@group(0) @binding(0) var<storage, read> means: array<f32>;
@group(0) @binding(1) var<storage, read> squares: array<f32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> mean: array<f32>;
@group(0) @binding(4) var<storage, read_write> variance: array<f32>;
@group(0) @binding(5) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> running_var: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let channel = row_of(grid);
    let numbers = select(0u, min(header.count, ROWS) * PLANE * NUMBERS, channel < CHANNELS);
    let found = merged(channel, numbers, grid);
    if channel < CHANNELS && grid.lane % LANES == 0u {
        keep(channel, found.mean, found.square, found.count);
    }
}
