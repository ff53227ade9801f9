// Walks x[ROWS, CHANNELS, PLANE] channel by channel; needs dispatch.wgsl. Elements are one number or four.
//
// A channel is shared among ROW_SPLITS × PLANE_LANES invocations, numbered so that neighbours read
// neighbouring elements; what belongs to the channel is read once. In sums over all but the channels each
// writes one partial result at its own index, so the partial results are again [ROW_SPLITS, CHANNELS,
// PLANE_LANES]. No barriers and no atomics: the order of sums is fixed.

override ROWS: u32;
override CHANNELS: u32;
override PLANE: u32;
override ROW_SPLITS: u32 = 1u;
override PLANE_LANES: u32 = 1u;
// Numbers in an element of a plane.
override NUMBERS: u32 = 1u;

struct Share {
    index: u32,
    channel: u32,
    first_row: u32,
    first_column: u32,
}

fn share_of(grid: Grid) -> Share {
    let i = flat_index(grid);
    let group = i / PLANE_LANES;
    return Share(i, group % CHANNELS, group / CHANNELS, i % PLANE_LANES);
}

fn is_share(share: Share) -> bool {
    return share.first_row < ROW_SPLITS;
}

// The share of an invocation where a workgroup has a channel to itself; there may be more workgroups than channels.
fn share_of_channel(grid: Grid) -> Share {
    let channel = flat_group(grid) % CHANNELS;
    return Share(grid.lane, channel, grid.lane / PLANE_LANES, grid.lane % PLANE_LANES);
}

fn is_channel(grid: Grid) -> bool {
    return flat_group(grid) < CHANNELS;
}

// Where a channel's elements of a row begin.
fn plane_of(row: u32, channel: u32) -> u32 {
    return (row * CHANNELS + channel) * PLANE;
}
