// What mean_squared_error and mean_squared_error_grad share. Needs rows.wgsl, header.wgsl.

override ROWS: u32;
override D: u32;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<f32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;

// Writes the loss of a row: the mean over its squared errors, 0 for padding.
fn row_loss(grid: Grid) {
    let row = row_of(grid);
    let end = select(0u, D, row < min(ROWS, header.count));
    let first = grid.lane % LANES;
    var sum = 0.0;
    for (var k = first; k < end; k += LANES) {
        let error = x[row * D + k] - targets[row * D + k];
        sum += error * error;
    }
    sum = row_sum(sum, grid);
    if row < ROWS && first == 0u {
        loss[row] = sum / f32(D);
    }
}
