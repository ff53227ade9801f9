// soft_cross_entropy: logits[ROWS, CLASSES], t, header | loss[ROWS]. Rows of padding get 0.

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    row_loss(grid);
}
