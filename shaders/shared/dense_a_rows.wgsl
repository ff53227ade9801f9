// a as [rows, inner], of any length.

@group(0) @binding(0) var<storage, read> a: array<AStore>;

const A_ALONG_INNER = true;

struct Row {
    start: u32,
}

fn row_of(group: u32, row: u32) -> Row {
    return Row(min(row, ROWS - 1u) * INNER);
}

fn a_quad(row: Row, k: u32) -> vec4<f32> {
    let inside = vec4<u32>(k) + ALONG < vec4<u32>(INNER);
    let at = row.start + min(vec4<u32>(k) + ALONG, vec4<u32>(INNER - 1u));
    return select(vec4<f32>(), vec4<f32>(vec4<AStore>(a[at.x], a[at.y], a[at.z], a[at.w])), inside);
}
