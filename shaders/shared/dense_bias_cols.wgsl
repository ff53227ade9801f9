// A bias for each column.

@group(0) @binding(BIAS_BINDING) var<storage, read> bias: array<BiasStore>;

fn row_bias(group: u32, row: u32) -> f32 {
    return 0.0;
}

fn col_bias(col: u32) -> f32 {
    return f32(bias[min(col, COLS - 1u)]);
}
