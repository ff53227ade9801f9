// step_metrics: loss[ROWS], correct[ROWS], header | metrics[4]: the sum of the samples' mean losses, of correct ones, the
// count, 0. One workgroup, all of whose invocations are the lanes of one row.

override ROWS: u32;
override PER_SAMPLE: u32 = 1u;

@group(0) @binding(0) var<storage, read> loss: array<f32>;
@group(0) @binding(1) var<storage, read> correct: array<f32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> metrics: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    var sum = 0.0;
    var hits = 0.0;
    for (var row = grid.lane; row < min(ROWS, header.count * PER_SAMPLE); row += WORKGROUP_SIZE) {
        sum += loss[row];
        hits += correct[row];
    }
    sum = row_sum(sum, grid);
    hits = row_sum(hits, grid);
    if grid.lane == 0u {
        metrics[0] = sum / f32(PER_SAMPLE);
        metrics[1] = hits / f32(PER_SAMPLE);
        metrics[2] = f32(header.count);
        metrics[3] = 0.0;
    }
}
