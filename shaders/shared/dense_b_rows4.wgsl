// b as [groups, inner, cols] with cols a multiple of four.

@group(0) @binding(1) var<storage, read> b: array<BStore>;

const B_ALONG_INNER = false;

struct Col {
    quad: u32,
}

fn col_of(group: u32, col: u32) -> Col {
    return Col(group * INNER * (COLS / 4u) + min(col, COLS - 1u) / 4u);
}

fn b_quad(col: Col, k: u32) -> vec4<f32> {
    let at = min(k, INNER - 1u) * (COLS / 4u) + col.quad;
    return select(vec4<f32>(), vec4<f32>(b[at]), k < INNER);
}
