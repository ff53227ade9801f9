// a as [groups, rows, inner], rows padded with zeros to a multiple of four.

@group(0) @binding(0) var<storage, read> a: array<AStore>;

const A_ALONG_INNER = true;

struct Row {
    start: u32,
}

fn row_of(group: u32, row: u32) -> Row {
    return Row((group * ROWS + min(row, ROWS - 1u)) * ((INNER + 3u) / 4u));
}

fn a_quad(row: Row, k: u32) -> vec4<f32> {
    let at = row.start + min(k, INNER - 1u) / 4u;
    return select(vec4<f32>(), vec4<f32>(a[at]), k < INNER);
}
