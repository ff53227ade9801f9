// A bias for each row of each group.

@group(0) @binding(BIAS_BINDING) var<storage, read> bias: array<BiasStore>;

fn row_bias(group: u32, row: u32) -> f32 {
    return f32(bias[group * ROWS + min(row, ROWS - 1u)]);
}

fn col_bias(col: u32) -> f32 {
    return 0.0;
}
