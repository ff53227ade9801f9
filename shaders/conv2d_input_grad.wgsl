// The gradient of a convolution's image, gathered: rows are the channels of x in a group, columns
// its pixels, and the inner dimension the output channels of the group with the kernel's taps. b is
// the gradient of whichever window reached the pixel by that tap, if one did.
//
// Where windows are STRIDE apart, a pixel is reached by every STRIDE-th tap only, and which those are
// depends on its place. So pixels that share their taps, a phase, make a product of their own.

@group(0) @binding(1) var<storage, read> dy: array<BStore>;

const B_ALONG_INNER = false;

// Four pixels of the phase: the row and column of the window that reaches each by the phase's first
// tap, and the element of dy that would be there.
struct Col {
    start: vec4<i32>,
    y: vec4<i32>,
    x: vec4<i32>,
}

fn col_of(group: u32, col: u32) -> Col {
    let index = min(vec4<u32>(col) + ALONG, vec4<u32>(COLS - 1u));
    let pixels = pixels_of(index, PHASE_HEIGHT, PHASE_WIDTH);
    let y = vec4<i32>(pixels.y + (FIRST_Y + PAD_Y - PHASE_Y) / STRIDE_Y);
    let x = vec4<i32>(pixels.x + (FIRST_X + PAD_X - PHASE_X) / STRIDE_X);
    let plane = pixels.image * OUT_CHANNELS + group * (OUT_CHANNELS / GROUPS);
    let start = vec4<i32>(plane * OUT_HEIGHT * OUT_WIDTH) + y * i32(OUT_WIDTH) + x;
    return Col(start, y, x);
}

fn b_quad(col: Col, k: u32) -> vec4<f32> {
    // Taps of the phase.
    let height = (KERNEL_HEIGHT - PHASE_Y + STRIDE_Y - 1u) / STRIDE_Y;
    let width = (KERNEL_WIDTH - PHASE_X + STRIDE_X - 1u) / STRIDE_X;
    let index = min(k, INNER - 1u);
    let tap_y = i32(index / width % height);
    let tap_x = i32(index % width);
    // Below zero becomes large, so one comparison a side tells.
    let inside = (vec4<u32>(col.y - tap_y) < vec4<u32>(OUT_HEIGHT))
        & (vec4<u32>(col.x - tap_x) < vec4<u32>(OUT_WIDTH))
        & vec4<bool>(k < INNER);
    let channel = i32(index / (height * width) * (OUT_HEIGHT * OUT_WIDTH));
    let at = select(vec4<i32>(), col.start + (channel - tap_y * i32(OUT_WIDTH) - tap_x), inside);
    return select(vec4<f32>(), vec4<f32>(vec4<BStore>(dy[at.x], dy[at.y], dy[at.z], dy[at.w])), inside);
}
