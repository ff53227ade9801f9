// A bias for each row of each group.

@group(0) @binding(3) var<storage, read> bias: array<f32>;

fn row_bias(group: u32, row: u32) -> f32 {
    return bias[group * ROWS + min(row, ROWS - 1u)];
}

fn col_bias(col: u32) -> f32 {
    return 0.0;
}
