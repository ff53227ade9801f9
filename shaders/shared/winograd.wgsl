// Convolutions of 3 by 3 by tiles of 4 by 4 results (Lavin and Gray, 2016, F(4x4, 3x3)): what a tile of
// results sees, 6 by 6 pixels, and the weights are transformed, multiplied element by element and
// summed over channels, which is 36 matrix products, and transformed back. That takes 36
// multiplications where the definition takes 144. In the order of a tile's pixels all 36 are
// counted row by row.
//
// Every invocation works on four tiles (or weights) at once, which lie side by side in transformed
// memory.

// What a tile's pixels become, along one dimension.
fn from_pixels(d: array<vec4<f32>, 6>) -> array<vec4<f32>, 6> {
    let even = d[4] - 4.0 * d[2];
    let odd = d[3] - 4.0 * d[1];
    let far_even = d[4] - d[2];
    let far_odd = 2.0 * (d[3] - d[1]);
    return array<vec4<f32>, 6>(
        4.0 * d[0] - 5.0 * d[2] + d[4],
        even + odd,
        even - odd,
        far_even + far_odd,
        far_even - far_odd,
        4.0 * d[1] - 5.0 * d[3] + d[5]
    );
}

// What weights become.
fn from_weights(g: array<vec4<f32>, 3>) -> array<vec4<f32>, 6> {
    let even = -(g[0] + g[2]) / 6.0;
    let far_even = g[0] / 24.0 + g[2] / 6.0;
    return array<vec4<f32>, 6>(
        g[0] / 4.0,
        even - g[1] / 6.0,
        even + g[1] / 6.0,
        far_even + g[1] / 12.0,
        far_even - g[1] / 12.0,
        g[2]
    );
}

// Results from products.
fn to_results(m: array<vec4<f32>, 6>) -> array<vec4<f32>, 4> {
    let even = m[1] + m[2];
    let odd = m[1] - m[2];
    let far_even = m[3] + m[4];
    let far_odd = m[3] - m[4];
    return array<vec4<f32>, 4>(
        m[0] + even + far_even,
        odd + 2.0 * far_odd,
        even + 4.0 * far_even,
        odd + 8.0 * far_odd + m[5]
    );
}

// The gradient of products from that of results.
fn from_results(y: array<vec4<f32>, 4>) -> array<vec4<f32>, 6> {
    let even = y[0] + y[2];
    let odd = y[1] + y[3];
    let far_even = y[0] + 4.0 * y[2];
    let far_odd = 2.0 * y[1] + 8.0 * y[3];
    return array<vec4<f32>, 6>(
        y[0], even + odd, even - odd, far_even + far_odd, far_even - far_odd, y[3]
    );
}

// The gradient of weights from that of what they became.
fn to_weights(m: array<vec4<f32>, 6>) -> array<vec4<f32>, 3> {
    let even = m[1] + m[2];
    let far_even = m[3] + m[4];
    return array<vec4<f32>, 3>(
        m[0] / 4.0 - even / 6.0 + far_even / 24.0,
        (m[2] - m[1]) / 6.0 + (m[3] - m[4]) / 12.0,
        (far_even - even) / 6.0 + m[5]
    );
}
