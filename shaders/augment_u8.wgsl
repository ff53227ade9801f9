// augment_u8: x u8[n, c, h, w], scale[c], shift[c], framings[n] | y[n, c, h, w]. y = scale x + shift of the pixel that
// the framing shows at each place. An invocation makes four places.

override CHANNELS: u32;
override PLANE: u32;
override WIDTH: u32;

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read> shift: array<f32>;
@group(0) @binding(3) var<storage, read> framings: array<Framing>;
@group(0) @binding(4) var<storage, read_write> y: array<StoreY>;

// Byte `at` of a run of bytes of which this is word `at / 4`.
fn byte_of(word: u32, at: u32) -> u32 {
    return (word >> (8u * (at % 4u))) & 0xffu;
}

// What place [row, column] of plane `plane` shows, counted over all images.
fn shown(plane: u32, row: i32, column: i32) -> u32 {
    let f = &framings[plane / CHANNELS];
    let channel = plane % CHANNELS;
    if (*f).cover_top <= row && row < (*f).cover_bottom && (*f).cover_left <= column && column < (*f).cover_right {
        return byte_of((*f).cover, channel);
    }
    if row < (*f).top || (*f).bottom <= row || column < (*f).left || (*f).right <= column {
        return byte_of((*f).margin, channel);
    }
    let from_row = u32((*f).row + (*f).row_step * row);
    let from_column = u32((*f).column + (*f).column_step * column);
    let at = plane * PLANE + from_row * WIDTH + from_column;
    return byte_of(x[min(at / 4u, arrayLength(&x) - 1u)], at);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let first = flat_index(grid) * 4u;
    let end = min(first + 4u, count_of(arrayLength(&y)));
    for (var i = first; i < end; i++) {
        let plane = i / PLANE;
        let place = i % PLANE;
        let channel = plane % CHANNELS;
        let byte = f32(shown(plane, i32(place / WIDTH), i32(place % WIDTH)));
        y[i] = StoreY(byte * scale[channel] + shift[channel]);
    }
}
