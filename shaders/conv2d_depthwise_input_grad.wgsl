// The gradient of the image of a convolution whose channels are groups of their own: every invocation
// gathers that of a pixel.

@group(0) @binding(0) var<storage, read> dy: array<XStore>;
@group(0) @binding(1) var<storage, read> w: array<WStore>;
@group(0) @binding(2) var<storage, read_write> dx: array<YStore>;

override LEN: u32;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let index = flat_index(grid);
    if index >= LEN {
        return;
    }
    // Channels of y for each of x.
    let each = OUT_CHANNELS / CHANNELS;
    let channel = index / (HEIGHT * WIDTH) % CHANNELS;
    let image = index / (HEIGHT * WIDTH * CHANNELS);
    // In the padded image.
    let y = index / WIDTH % HEIGHT + PAD_Y;
    let x = index % WIDTH + PAD_X;
    var sum = 0.0;
    for (var output = channel * each; output < (channel + 1u) * each; output++) {
        let plane = image * OUT_CHANNELS + output;
        for (var tap_y = 0u; tap_y < KERNEL_HEIGHT; tap_y++) {
            for (var tap_x = 0u; tap_x < KERNEL_WIDTH; tap_x++) {
                // Where the window begins that reaches the pixel; below zero is large.
                let begin_y = y - tap_y;
                let begin_x = x - tap_x;
                let from_y = begin_y / STRIDE_Y;
                let from_x = begin_x / STRIDE_X;
                let met = begin_y % STRIDE_Y == 0u && begin_x % STRIDE_X == 0u;
                if met && from_y < OUT_HEIGHT && from_x < OUT_WIDTH {
                    let weight = w[(output * KERNEL_HEIGHT + tap_y) * KERNEL_WIDTH + tap_x];
                    sum += f32(weight) * f32(dy[(plane * OUT_HEIGHT + from_y) * OUT_WIDTH + from_x]);
                }
            }
        }
    }
    dx[index] = YStore(sum);
}
