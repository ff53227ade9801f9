// b as images [images, groups · inner, plane], whose planes hold a multiple of four: columns are the
// pixels of all images, and the inner dimension their channels in a group.

@group(0) @binding(1) var<storage, read> b: array<BStore>;

const B_ALONG_INNER = false;

struct Col {
    quad: u32,
}

fn col_of(group: u32, col: u32) -> Col {
    let pixel = min(col, COLS - 1u);
    return Col(((pixel / PLANE * GROUPS + group) * INNER * PLANE + pixel % PLANE) / 4u);
}

fn b_quad(col: Col, k: u32) -> vec4<f32> {
    let at = min(k, INNER - 1u) * (PLANE / 4u) + col.quad;
    return select(vec4<f32>(), vec4<f32>(b[at]), k < INNER);
}
