// Transforms the gradient of a convolution's results, dy[n, c, h, w], into that of the products,
// transformed[36, c, tiles], as shared/winograd.wgsl says.

@group(0) @binding(0) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> transformed: array<vec4<f32>>;

fn row_of(place: Place, i: u32) -> vec4<f32> {
    let y = 4u * place.down + i;
    let inside = place.real && y < HEIGHT;
    let at = place.plane + select(0u, y, inside) * (WIDTH / 4u) + place.across;
    return select(vec4<f32>(), dy[at], inside);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let index = flat_index(grid);
    if index >= CHANNELS * QUADS {
        return;
    }
    let channel = index / QUADS;
    let quad = index % QUADS;
    let first = place_of(4u * quad, channel);
    let second = place_of(4u * quad + 1u, channel);
    let third = place_of(4u * quad + 2u, channel);
    let fourth = place_of(4u * quad + 3u, channel);
    var half: array<array<vec4<f32>, 6>, 4>;
    for (var i = 0u; i < 4u; i++) {
        let columns = transpose(mat4x4<f32>(
            row_of(first, i), row_of(second, i), row_of(third, i), row_of(fourth, i)
        ));
        half[i] = from_results(
            array<vec4<f32>, 4>(columns[0], columns[1], columns[2], columns[3])
        );
    }
    let pitch = CHANNELS * QUADS;
    for (var j = 0u; j < 6u; j++) {
        let whole =
            from_results(array<vec4<f32>, 4>(half[0][j], half[1][j], half[2][j], half[3][j]));
        for (var i = 0u; i < 6u; i++) {
            transformed[(6u * i + j) * pitch + index] = whole[i];
        }
    }
}
