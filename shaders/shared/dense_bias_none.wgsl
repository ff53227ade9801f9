// No bias.

fn row_bias(group: u32, row: u32) -> f32 {
    return 0.0;
}

fn col_bias(col: u32) -> f32 {
    return 0.0;
}
