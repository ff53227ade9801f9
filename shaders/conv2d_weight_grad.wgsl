// The gradient of a convolution's weights as a product: rows are output channels, columns the taps,
// and the inner dimension the output pixels of all images. b is what the tap saw for each pixel.

@group(0) @binding(1) var<storage, read> x: array<BStore>;

const B_ALONG_INNER = true;

// A tap: its place relative to the window of pixel 0, and the element of the first image there.
struct Col {
    start: i32,
    y: i32,
    x: i32,
}

fn col_of(group: u32, col: u32) -> Col {
    let tap = tap_of(min(col, COLS - 1u));
    let y = i32(tap.y) - i32(PAD_Y);
    let x = i32(tap.x) - i32(PAD_X);
    let channel = group * (CHANNELS / GROUPS) + tap.channel;
    return Col(i32(channel * HEIGHT * WIDTH) + y * i32(WIDTH) + x, y, x);
}

fn b_quad(col: Col, k: u32) -> vec4<f32> {
    let index = vec4<u32>(k) + ALONG;
    let pixels = pixels_of(min(index, vec4<u32>(INNER - 1u)), OUT_HEIGHT, OUT_WIDTH);
    let window_y = pixels.y * STRIDE_Y;
    let window_x = pixels.x * STRIDE_X;
    // Below zero becomes large, so one comparison a side tells.
    let inside = (vec4<u32>(vec4<i32>(window_y) + col.y) < vec4<u32>(HEIGHT))
        & (vec4<u32>(vec4<i32>(window_x) + col.x) < vec4<u32>(WIDTH))
        & (index < vec4<u32>(INNER));
    let window = (pixels.image * CHANNELS * HEIGHT + window_y) * WIDTH + window_x;
    let at = select(vec4<i32>(), vec4<i32>(window) + col.start, inside);
    return select(vec4<f32>(), vec4<f32>(vec4<BStore>(x[at.x], x[at.y], x[at.z], x[at.w])), inside);
}
