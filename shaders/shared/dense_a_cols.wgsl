// a stored transposed, as [inner, rows] of any length.

@group(0) @binding(0) var<storage, read> a: array<AStore>;

const A_ALONG_INNER = false;

struct Row {
    at: vec4<u32>,
}

fn row_of(group: u32, row: u32) -> Row {
    return Row(min(vec4<u32>(row) + ALONG, vec4<u32>(ROWS - 1u)));
}

fn a_quad(row: Row, k: u32) -> vec4<f32> {
    let at = min(k, INNER - 1u) * ROWS + row.at;
    return select(vec4<f32>(), vec4<f32>(vec4<AStore>(a[at.x], a[at.y], a[at.z], a[at.w])), k < INNER);
}
