// Geometry of a convolution. Pixels are counted through all images; taps through the channels of a
// group, then the kernel's rows, then its columns.

// Of the image x (or dx), in all its groups.
override CHANNELS: u32;
override HEIGHT: u32;
override WIDTH: u32;
// Of the image y (or dy), in all its groups.
override OUT_CHANNELS: u32;
override OUT_HEIGHT: u32;
override OUT_WIDTH: u32;
override KERNEL_HEIGHT: u32;
override KERNEL_WIDTH: u32;
override STRIDE_Y: u32;
override STRIDE_X: u32;
override PAD_Y: u32;
override PAD_X: u32;
// Elements of the plane that images are counted by.
override PLANE: u32;
// For the gradient of an image: a phase's first tap, its first pixel, and its pixels in each direction.
override PHASE_Y: u32 = 0u;
override PHASE_X: u32 = 0u;
override FIRST_Y: u32 = 0u;
override FIRST_X: u32 = 0u;
override PHASE_HEIGHT: u32 = 1u;
override PHASE_WIDTH: u32 = 1u;

// A tap: channel within the group, row and column within the kernel.
struct Tap {
    channel: u32,
    y: u32,
    x: u32,
}

fn tap_of(index: u32) -> Tap {
    let taps = KERNEL_HEIGHT * KERNEL_WIDTH;
    return Tap(index / taps, index % taps / KERNEL_WIDTH, index % KERNEL_WIDTH);
}

// Four pixels: their images, rows and columns.
struct Pixels {
    image: vec4<u32>,
    y: vec4<u32>,
    x: vec4<u32>,
}

fn pixels_of(index: vec4<u32>, height: u32, width: u32) -> Pixels {
    return Pixels(index / (height * width), index / width % height, index % width);
}
