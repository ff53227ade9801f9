// Transforms the pixels of an image, x[n, c, h, w], as shared/winograd.wgsl says, into
// transformed[36, c, tiles].

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> transformed: array<vec4<f32>>;

// The six pixels that row `i` of a tile sees.
fn row_of(place: Place, i: u32) -> array<f32, 6> {
    let y = 4u * place.down + i - 1u;
    // Above the image is below zero, which is large.
    let inside = place.real && y < HEIGHT;
    let at = place.plane + select(0u, y, inside) * (WIDTH / 4u) + place.across;
    let has_left = inside && place.across > 0u;
    let has_right = inside && place.across + 1u < TILES_ACROSS;
    let left = select(0.0, x[select(at, at - 1u, has_left)].w, has_left);
    let four = select(vec4<f32>(), x[at], inside);
    let right = select(0.0, x[select(at, at + 1u, has_right)].x, has_right);
    return array<f32, 6>(left, four.x, four.y, four.z, four.w, right);
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
    // Along rows, then along columns.
    var half: array<array<vec4<f32>, 6>, 6>;
    for (var i = 0u; i < 6u; i++) {
        let a = row_of(first, i);
        let b = row_of(second, i);
        let c = row_of(third, i);
        let d = row_of(fourth, i);
        half[i] = from_pixels(array<vec4<f32>, 6>(
            vec4<f32>(a[0], b[0], c[0], d[0]),
            vec4<f32>(a[1], b[1], c[1], d[1]),
            vec4<f32>(a[2], b[2], c[2], d[2]),
            vec4<f32>(a[3], b[3], c[3], d[3]),
            vec4<f32>(a[4], b[4], c[4], d[4]),
            vec4<f32>(a[5], b[5], c[5], d[5])
        ));
    }
    let pitch = CHANNELS * QUADS;
    for (var j = 0u; j < 6u; j++) {
        let whole = from_pixels(array<vec4<f32>, 6>(
            half[0][j], half[1][j], half[2][j], half[3][j], half[4][j], half[5][j]
        ));
        for (var i = 0u; i < 6u; i++) {
            transformed[(6u * i + j) * pitch + index] = whole[i];
        }
    }
}
