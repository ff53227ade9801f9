// Transforms the gradient of transformed weights, sums[36, o, c], into that of the weights
// dw[o, c, 3, 3], as shared/winograd.wgsl says.

@group(0) @binding(0) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> dw: array<vec4<f32>>;

// Fours of weights' planes: o · c / 4.
override FOURS: u32;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let index = flat_index(grid);
    if index >= FOURS {
        return;
    }
    var half: array<array<vec4<f32>, 3>, 6>;
    for (var j = 0u; j < 6u; j++) {
        half[j] = to_weights(array<vec4<f32>, 6>(
            sums[j * FOURS + index],
            sums[(6u + j) * FOURS + index],
            sums[(12u + j) * FOURS + index],
            sums[(18u + j) * FOURS + index],
            sums[(24u + j) * FOURS + index],
            sums[(30u + j) * FOURS + index]
        ));
    }
    var g: array<vec4<f32>, 9>;
    for (var i = 0u; i < 3u; i++) {
        let row = to_weights(array<vec4<f32>, 6>(
            half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]
        ));
        g[3u * i] = row[0];
        g[3u * i + 1u] = row[1];
        g[3u * i + 2u] = row[2];
    }
    // Four planes of nine, one after the other.
    let at = 9u * index;
    dw[at] = vec4<f32>(g[0].x, g[1].x, g[2].x, g[3].x);
    dw[at + 1u] = vec4<f32>(g[4].x, g[5].x, g[6].x, g[7].x);
    dw[at + 2u] = vec4<f32>(g[8].x, g[0].y, g[1].y, g[2].y);
    dw[at + 3u] = vec4<f32>(g[3].y, g[4].y, g[5].y, g[6].y);
    dw[at + 4u] = vec4<f32>(g[7].y, g[8].y, g[0].z, g[1].z);
    dw[at + 5u] = vec4<f32>(g[2].z, g[3].z, g[4].z, g[5].z);
    dw[at + 6u] = vec4<f32>(g[6].z, g[7].z, g[8].z, g[0].w);
    dw[at + 7u] = vec4<f32>(g[1].w, g[2].w, g[3].w, g[4].w);
    dw[at + 8u] = vec4<f32>(g[5].w, g[6].w, g[7].w, g[8].w);
}
