// b as [inner, cols] of any length.

@group(0) @binding(1) var<storage, read> b: array<BStore>;

const B_ALONG_INNER = false;

struct Col {
    at: vec4<u32>,
}

fn col_of(group: u32, col: u32) -> Col {
    return Col(min(vec4<u32>(col) + ALONG, vec4<u32>(COLS - 1u)));
}

fn b_quad(col: Col, k: u32) -> vec4<f32> {
    let at = min(k, INNER - 1u) * COLS + col.at;
    return select(vec4<f32>(), vec4<f32>(vec4<BStore>(b[at.x], b[at.y], b[at.z], b[at.w])), k < INNER);
}
