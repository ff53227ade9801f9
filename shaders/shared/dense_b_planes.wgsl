// b as images [images, groups · inner, plane]: columns are the pixels of all images, and the inner
// dimension their channels in a group.

@group(0) @binding(1) var<storage, read> b: array<BStore>;

const B_ALONG_INNER = false;

struct Col {
    start: vec4<u32>,
}

fn col_of(group: u32, col: u32) -> Col {
    let pixel = min(vec4<u32>(col) + ALONG, vec4<u32>(COLS - 1u));
    return Col((pixel / PLANE * GROUPS + group) * (INNER * PLANE) + pixel % PLANE);
}

fn b_quad(col: Col, k: u32) -> vec4<f32> {
    let at = col.start + min(k, INNER - 1u) * PLANE;
    let values = vec4<BStore>(b[at.x], b[at.y], b[at.z], b[at.w]);
    return select(vec4<f32>(), vec4<f32>(values), k < INNER);
}
