// The gradient of the weights of a convolution whose channels are groups of their own. A workgroup
// takes a chunk of the pixels of one channel of y; its invocations go through them side by side, and
// their sums are added up in a fixed order. Needs TAPS: those of the kernel.

@group(0) @binding(0) var<storage, read> x: array<XStore>;
@group(0) @binding(1) var<storage, read> dy: array<WStore>;
// chunks[splits, o, taps]
@group(0) @binding(2) var<storage, read_write> chunks: array<f32>;

// Pixels of a channel of y in all images, and how many of them make a chunk.
override PIXELS: u32;
override CHUNK: u32;
override SPLITS: u32;

var<workgroup> parts: array<f32, WORKGROUP_SIZE>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let group = flat_group(grid);
    if group >= SPLITS * OUT_CHANNELS {
        return;
    }
    let output = group % OUT_CHANNELS;
    let split = group / OUT_CHANNELS;
    let channel = output / (OUT_CHANNELS / CHANNELS);
    var sums: array<f32, TAPS>;
    let end = min(split * CHUNK + CHUNK, PIXELS);
    for (var pixel = split * CHUNK + grid.lane; pixel < end; pixel += WORKGROUP_SIZE) {
        let image = pixel / (OUT_HEIGHT * OUT_WIDTH);
        let place = pixel % (OUT_HEIGHT * OUT_WIDTH);
        let gradient = f32(dy[(image * OUT_CHANNELS + output) * (OUT_HEIGHT * OUT_WIDTH) + place]);
        let plane = (image * CHANNELS + channel) * HEIGHT;
        for (var tap = 0u; tap < TAPS; tap++) {
            // Before the image is below zero, which is large.
            let y = place / OUT_WIDTH * STRIDE_Y + tap / KERNEL_WIDTH - PAD_Y;
            let from_x = place % OUT_WIDTH * STRIDE_X + tap % KERNEL_WIDTH - PAD_X;
            let inside = y < HEIGHT && from_x < WIDTH;
            let at = select(0u, (plane + y) * WIDTH + from_x, inside);
            sums[tap] += select(0.0, gradient * f32(x[at]), inside);
        }
    }
    for (var tap = 0u; tap < TAPS; tap++) {
        parts[grid.lane] = sums[tap];
        for (var half = WORKGROUP_SIZE / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if grid.lane < half {
                parts[grid.lane] += parts[grid.lane + half];
            }
        }
        if grid.lane == 0u {
            chunks[group * TAPS + tap] = parts[0];
        }
        workgroupBarrier();
    }
}
