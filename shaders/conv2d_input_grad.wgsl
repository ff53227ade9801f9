// The gradient of a convolution's image, gathered: rows are the channels of x in a group, columns
// its pixels, and the inner dimension the output channels of the group with the kernel's taps. b is
// the gradient of whichever window reached the pixel by that tap, if one did.

@group(0) @binding(1) var<storage, read> dy: array<BStore>;

const B_ALONG_INNER = false;

// Four pixels of x, their place in the padded image, and where their images' dy begin.
struct Col {
    start: vec4<u32>,
    y: vec4<i32>,
    x: vec4<i32>,
}

fn col_of(group: u32, col: u32) -> Col {
    let pixels = pixels_of(min(vec4<u32>(col) + ALONG, vec4<u32>(COLS - 1u)), HEIGHT, WIDTH);
    let plane = pixels.image * OUT_CHANNELS + group * (OUT_CHANNELS / GROUPS);
    return Col(
        plane * OUT_HEIGHT * OUT_WIDTH,
        vec4<i32>(pixels.y) + i32(PAD_Y),
        vec4<i32>(pixels.x) + i32(PAD_X)
    );
}

fn b_quad(col: Col, k: u32) -> vec4<f32> {
    let tap = tap_of(min(k, INNER - 1u));
    // How far into the padded image the window begins; below zero becomes large.
    let begin_y = vec4<u32>(col.y - i32(tap.y));
    let begin_x = vec4<u32>(col.x - i32(tap.x));
    let y = begin_y / STRIDE_Y;
    let x = begin_x / STRIDE_X;
    let inside = (begin_y == y * STRIDE_Y) & (begin_x == x * STRIDE_X)
        & (y < vec4<u32>(OUT_HEIGHT)) & (x < vec4<u32>(OUT_WIDTH))
        & vec4<bool>(k < INNER);
    let offset = (tap.channel * OUT_HEIGHT + y) * OUT_WIDTH + x;
    let at = select(vec4<u32>(), col.start + offset, inside);
    return select(vec4<f32>(), vec4<f32>(vec4<BStore>(dy[at.x], dy[at.y], dy[at.z], dy[at.w])), inside);
}
