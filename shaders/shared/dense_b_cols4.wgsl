// b stored transposed, as [groups, cols, inner] with inner a multiple of four.

@group(0) @binding(1) var<storage, read> b: array<BStore>;

const B_ALONG_INNER = true;

struct Col {
    start: u32,
}

fn col_of(group: u32, col: u32) -> Col {
    return Col((group * COLS + min(col, COLS - 1u)) * (INNER / 4u));
}

fn b_quad(col: Col, k: u32) -> vec4<f32> {
    let at = col.start + min(k, INNER - 1u) / 4u;
    return select(vec4<f32>(), vec4<f32>(b[at]), k < INNER);
}
