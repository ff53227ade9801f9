// a stored transposed, as [inner, rows] with rows a multiple of four.

@group(0) @binding(0) var<storage, read> a: array<AStore>;

const A_ALONG_INNER = false;

struct Row {
    quad: u32,
}

fn row_of(group: u32, row: u32) -> Row {
    return Row(min(row, ROWS - 1u) / 4u);
}

fn a_quad(row: Row, k: u32) -> vec4<f32> {
    let at = min(k, INNER - 1u) * (ROWS / 4u) + row.quad;
    return select(vec4<f32>(), vec4<f32>(a[at]), k < INNER);
}
