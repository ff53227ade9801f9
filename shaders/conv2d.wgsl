// A convolution as a product: rows are output channels, columns output pixels, and the inner
// dimension the taps. b is gathered from the image x, with zeros around it.

@group(0) @binding(1) var<storage, read> x: array<BStore>;

const B_ALONG_INNER = false;

// Four output pixels: where their windows begin in the image, and the element of x that would be
// there.
struct Col {
    start: vec4<i32>,
    y: vec4<i32>,
    x: vec4<i32>,
}

fn col_of(group: u32, col: u32) -> Col {
    let pixels = pixels_of(min(vec4<u32>(col) + ALONG, vec4<u32>(COLS - 1u)), OUT_HEIGHT, OUT_WIDTH);
    let window_y = vec4<i32>(pixels.y * STRIDE_Y) - i32(PAD_Y);
    let window_x = vec4<i32>(pixels.x * STRIDE_X) - i32(PAD_X);
    let plane = pixels.image * CHANNELS + group * (CHANNELS / GROUPS);
    let start = vec4<i32>(plane * HEIGHT * WIDTH) + window_y * i32(WIDTH) + window_x;
    return Col(start, window_y, window_x);
}

fn b_quad(col: Col, k: u32) -> vec4<f32> {
    let tap = tap_of(min(k, INNER - 1u));
    // Below zero becomes large, so one comparison a side tells.
    let inside = (vec4<u32>(col.y + i32(tap.y)) < vec4<u32>(HEIGHT))
        & (vec4<u32>(col.x + i32(tap.x)) < vec4<u32>(WIDTH))
        & vec4<bool>(k < INNER);
    let offset = i32((tap.channel * HEIGHT + tap.y) * WIDTH + tap.x);
    let at = select(vec4<i32>(), col.start + offset, inside);
    return select(vec4<f32>(), vec4<f32>(vec4<BStore>(x[at.x], x[at.y], x[at.z], x[at.w])), inside);
}
