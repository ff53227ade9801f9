// a as the images [images, groups · rows, plane]: the inner dimension runs over the pixels of all
// images, and planes hold a multiple of four.

@group(0) @binding(0) var<storage, read> a: array<AStore>;

const A_ALONG_INNER = true;

struct Row {
    start: u32,
}

fn row_of(group: u32, row: u32) -> Row {
    return Row((group * ROWS + min(row, ROWS - 1u)) * PLANE);
}

fn a_quad(row: Row, k: u32) -> vec4<f32> {
    let pixel = min(k, INNER - 1u);
    let at = pixel / PLANE * (GROUPS * ROWS * PLANE) + row.start + pixel % PLANE;
    return select(vec4<f32>(), vec4<f32>(a[at / 4u]), k < INNER);
}
