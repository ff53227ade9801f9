// mean_squared_error: x[ROWS, D], target, header | loss[ROWS].

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    row_loss(grid);
}
