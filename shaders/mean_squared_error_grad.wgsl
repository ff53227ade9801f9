// mean_squared_error with its gradient: x[ROWS, D], target, header | loss[ROWS], dx. The gradient is
// that of the mean over the valid rows; rows of padding get 0.

@group(0) @binding(4) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    row_loss(grid);
    let row = row_of(grid);
    let is_valid = row < header.count;
    let end = select(0u, D, row < ROWS);
    let factor = 2.0 / (f32(D) * f32(header.count));
    for (var k = grid.lane % LANES; k < end; k += LANES) {
        let at = row * D + k;
        dx[at] = select(0.0, factor * (x[at] - targets[at]), is_valid);
    }
}
