// b as images [images, groups · cols, plane], whose planes hold a multiple of four: columns are channels,
// and the inner dimension runs over the pixels of all images.

@group(0) @binding(1) var<storage, read> b: array<BStore>;

const B_ALONG_INNER = true;

struct Col {
    start: u32,
}

fn col_of(group: u32, col: u32) -> Col {
    return Col((group * COLS + min(col, COLS - 1u)) * PLANE);
}

fn b_quad(col: Col, k: u32) -> vec4<f32> {
    let pixel = min(k, INNER - 1u);
    let at = pixel / PLANE * (GROUPS * COLS * PLANE) + col.start + pixel % PLANE;
    return select(vec4<f32>(), vec4<f32>(b[at / 4u]), k < INNER);
}
