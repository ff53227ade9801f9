// A bias for each column.

@group(0) @binding(3) var<storage, read> bias: array<f32>;

fn row_bias(group: u32, row: u32) -> f32 {
    return 0.0;
}

fn col_bias(col: u32) -> f32 {
    return bias[min(col, COLS - 1u)];
}
