// Transforms products[36, c, tiles] into the planes of y[n, c, h, w], as shared/winograd.wgsl says, and does
// what follows the sum.

@group(0) @binding(0) var<storage, read> products: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

// Every channel is a group of one row, as the bias counts them.
const ROWS = 1u;
const BIAS_BINDING = 2u;

fn put(place: Place, i: u32, values: vec4<f32>) {
    let row = 4u * place.down + i;
    if place.real && row < HEIGHT {
        y[place.plane + row * (WIDTH / 4u) + place.across] = vec4<f32>(
            activate(values.x), activate(values.y), activate(values.z), activate(values.w)
        );
    }
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
    let pitch = CHANNELS * QUADS;
    let bias = row_bias(channel, 0u);
    // Along columns, then along rows.
    var half: array<array<vec4<f32>, 4>, 6>;
    for (var j = 0u; j < 6u; j++) {
        half[j] = to_results(array<vec4<f32>, 6>(
            products[j * pitch + index],
            products[(6u + j) * pitch + index],
            products[(12u + j) * pitch + index],
            products[(18u + j) * pitch + index],
            products[(24u + j) * pitch + index],
            products[(30u + j) * pitch + index]
        ));
    }
    for (var i = 0u; i < 4u; i++) {
        let row = to_results(array<vec4<f32>, 6>(
            half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]
        ));
        let tiles = transpose(mat4x4<f32>(row[0], row[1], row[2], row[3]));
        put(first, i, tiles[0] + bias);
        put(second, i, tiles[1] + bias);
        put(third, i, tiles[2] + bias);
        put(fourth, i, tiles[3] + bias);
    }
}
