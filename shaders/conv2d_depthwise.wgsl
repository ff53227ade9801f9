// A convolution whose channels are groups of their own: every invocation computes a pixel of y. With
// so few products for each pixel there is nothing to gain from a tile.

@group(0) @binding(0) var<storage, read> x: array<XStore>;
@group(0) @binding(1) var<storage, read> w: array<WStore>;
@group(0) @binding(2) var<storage, read_write> y: array<YStore>;

// Every channel of y is a group of one row, as the bias counts them.
const ROWS = 1u;
const BIAS_BINDING = 3u;

override LEN: u32;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let index = flat_index(grid);
    if index >= LEN {
        return;
    }
    let output = index / (OUT_HEIGHT * OUT_WIDTH) % OUT_CHANNELS;
    let image = index / (OUT_HEIGHT * OUT_WIDTH * OUT_CHANNELS);
    let plane = image * CHANNELS + output / (OUT_CHANNELS / CHANNELS);
    // Before the image is below zero, which is large.
    let first_y = index / OUT_WIDTH % OUT_HEIGHT * STRIDE_Y - PAD_Y;
    let first_x = index % OUT_WIDTH * STRIDE_X - PAD_X;
    var sum = row_bias(output, 0u);
    for (var tap_y = 0u; tap_y < KERNEL_HEIGHT; tap_y++) {
        for (var tap_x = 0u; tap_x < KERNEL_WIDTH; tap_x++) {
            let from_y = first_y + tap_y;
            let from_x = first_x + tap_x;
            if from_y < HEIGHT && from_x < WIDTH {
                let weight = w[(output * KERNEL_HEIGHT + tap_y) * KERNEL_WIDTH + tap_x];
                sum += f32(weight) * f32(x[(plane * HEIGHT + from_y) * WIDTH + from_x]);
            }
        }
    }
    y[index] = YStore(activate(sum));
}
