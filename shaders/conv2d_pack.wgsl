// Writes a convolution's weights `w[o, c, taps]` as rows of a product, each padded with zeros to a
// multiple of four, so that the product can read them by fours: for the convolution a row is an
// output channel, for the gradient of its image (TURNED) a channel of the image in its group, with
// those taps that a phase has.

@group(0) @binding(0) var<storage, read> w: array<WStore>;
@group(0) @binding(1) var<storage, read_write> packed: array<f32>;

// Rows of a group, groups, and the length of a row without its padding.
override ROWS: u32;
override GROUPS: u32;
override INNER: u32;
override TURNED: bool;
// The kernel, and the taps of a phase: every STRIDE-th from the first on.
override KERNEL_HEIGHT: u32;
override KERNEL_WIDTH: u32;
override STRIDE_Y: u32;
override STRIDE_X: u32;
override PHASE_Y: u32;
override PHASE_X: u32;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let index = flat_index(grid);
    let pitch = (INNER + 3u) / 4u * 4u;
    if index >= GROUPS * ROWS * pitch {
        return;
    }
    let k = index % pitch;
    let row = index / pitch;
    var at = row * INNER + k;
    if TURNED {
        // Row: group, channel; inner: output channel of the group, tap.
        let height = (KERNEL_HEIGHT - PHASE_Y + STRIDE_Y - 1u) / STRIDE_Y;
        let width = (KERNEL_WIDTH - PHASE_X + STRIDE_X - 1u) / STRIDE_X;
        let taps = height * width;
        let y = PHASE_Y + k % taps / width * STRIDE_Y;
        let x = PHASE_X + k % width * STRIDE_X;
        let output = row / ROWS * (INNER / taps) + k / taps;
        at = ((output * ROWS + row % ROWS) * KERNEL_HEIGHT + y) * KERNEL_WIDTH + x;
    }
    var value = 0.0;
    if k < INNER {
        value = f32(w[at]);
    }
    packed[index] = value;
}
