// b stored transposed, as [cols, inner] of any length.

@group(0) @binding(1) var<storage, read> b: array<BStore>;

const B_ALONG_INNER = true;

struct Col {
    start: u32,
}

fn col_of(group: u32, col: u32) -> Col {
    return Col(min(col, COLS - 1u) * INNER);
}

fn b_quad(col: Col, k: u32) -> vec4<f32> {
    let inside = vec4<u32>(k) + ALONG < vec4<u32>(INNER);
    let at = col.start + min(vec4<u32>(k) + ALONG, vec4<u32>(INNER - 1u));
    return select(vec4<f32>(), vec4<f32>(vec4<BStore>(b[at.x], b[at.y], b[at.z], b[at.w])), inside);
}
