// Tiles of the planes of images, for shared/winograd.wgsl.

// Tiles along the height and the width of an image, in all images, and fours of those, rounded up.
override TILES_DOWN: u32;
override TILES_ACROSS: u32;
override TILES: u32;
override QUADS: u32;
override CHANNELS: u32;
override HEIGHT: u32;
// A multiple of four.
override WIDTH: u32;

// Where a tile lies: the first four of its plane, and its row and column among tiles. For what is no
// tile, `real` does not hold.
struct Place {
    plane: u32,
    down: u32,
    across: u32,
    real: bool,
}

fn place_of(tile: u32, channel: u32) -> Place {
    let real = tile < TILES;
    let kept = select(0u, tile, real);
    let image = kept / (TILES_DOWN * TILES_ACROSS);
    let plane = (image * CHANNELS + channel) * (HEIGHT * WIDTH / 4u);
    return Place(plane, kept / TILES_ACROSS % TILES_DOWN, kept % TILES_ACROSS, real);
}
