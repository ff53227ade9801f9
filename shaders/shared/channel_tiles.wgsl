// Sums over all but the second dimension of x[ROWS, CHANNELS, PLANE], for GPUs; needs dispatch.wgsl and
// rows.wgsl, whose LANES are here the whole workgroup.
//
// Elements are one number or four. Those of a channel, counted row by row, are cut into TILES tiles, one a workgroup. Neighbouring
// invocations read neighbouring elements, EACH of them each, all on their way at once, and the workgroup
// writes one partial result, so these are [TILES, CHANNELS]. Needs EACH.

override ROWS: u32;
override CHANNELS: u32;
override PLANE: u32;
override TILES: u32;
// Numbers in an element of a plane.
override NUMBERS: u32 = 1u;

const TILE_LEN = EACH * 256u;

struct Tile {
    // Where its result stands.
    index: u32,
    channel: u32,
    // The first of its elements, counted within the channel.
    first: u32,
}

// There may be more workgroups than tiles.
fn tile_of(grid: Grid) -> Tile {
    let index = flat_group(grid);
    return Tile(index, index % CHANNELS, index / CHANNELS * TILE_LEN);
}

fn is_tile(tile: Tile) -> bool {
    return tile.index < TILES * CHANNELS;
}

// The end of a tile in a channel of so many elements; none of a tile that is not there.
fn end_of(tile: Tile, elements: u32) -> u32 {
    return select(0u, min(tile.first + TILE_LEN, elements), is_tile(tile));
}

// Where an element of a channel lies.
fn place_of(channel: u32, i: u32) -> u32 {
    return (i / PLANE * CHANNELS + channel) * PLANE + i % PLANE;
}
