// A bias for each column is added to summed chunks.

@group(0) @binding(2) var<storage, read> bias: array<f32>;

fn bias_at(col: u32) -> f32 {
    return bias[col];
}
