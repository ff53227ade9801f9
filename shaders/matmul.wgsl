// A matrix product writes its rows one after another: y is [splits, groups, rows, cols]. Operand
// parts (shared/dense_a_*, shared/dense_b_*) stand for the four transpositions.

fn place(split: u32, group: u32, row: u32, col: u32) -> u32 {
    return ((split * GROUPS + group) * ROWS + row) * COLS + col;
}
