// Transforms weights w[o, c, 3, 3] as shared/winograd.wgsl says: into transformed[36, o, c] for a convolution,
// into transformed[36, c, o], turned by half a circle, for the gradient of its image (TURNED).

@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read_write> transformed: array<vec4<f32>>;

// Of the transformed weights; inner is a multiple of four.
override ROWS: u32;
override INNER: u32;
override TURNED: bool;

fn weight(row: u32, inner: u32, tap: u32) -> f32 {
    let plane = select(row * INNER + inner, inner * ROWS + row, TURNED);
    return w[9u * plane + select(tap, 8u - tap, TURNED)];
}

fn four_of(row: u32, inner: u32, tap: u32) -> vec4<f32> {
    return vec4<f32>(
        weight(row, inner, tap),
        weight(row, inner + 1u, tap),
        weight(row, inner + 2u, tap),
        weight(row, inner + 3u, tap)
    );
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let index = flat_index(grid);
    if index >= ROWS * (INNER / 4u) {
        return;
    }
    let row = index / (INNER / 4u);
    let inner = index % (INNER / 4u) * 4u;
    var half: array<array<vec4<f32>, 6>, 3>;
    for (var i = 0u; i < 3u; i++) {
        half[i] = from_weights(array<vec4<f32>, 3>(
            four_of(row, inner, 3u * i), four_of(row, inner, 3u * i + 1u), four_of(row, inner, 3u * i + 2u)
        ));
    }
    let pitch = ROWS * (INNER / 4u);
    for (var j = 0u; j < 6u; j++) {
        let whole = from_weights(array<vec4<f32>, 3>(half[0][j], half[1][j], half[2][j]));
        for (var i = 0u; i < 6u; i++) {
            transformed[(6u * i + j) * pitch + index] = whole[i];
        }
    }
}
