// Where an invocation stands. A grid of more workgroups than one dimension may hold is folded into
// two, so shaders count workgroups and invocations by these functions and guard the tail.

override WORKGROUP_SIZE: u32 = 64u;
// Whether the result is an odd number of 16-bit floats, whose last word holds one that is not its own.
override ODD: bool = false;

struct Grid {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
}

fn flat_group(grid: Grid) -> u32 {
    return grid.group.y * grid.groups.x + grid.group.x;
}

fn flat_index(grid: Grid) -> u32 {
    return flat_group(grid) * WORKGROUP_SIZE + grid.lane;
}

// How many elements a result has that is bound as an array of `len`.
fn count_of(len: u32) -> u32 {
    return select(len, len - 1u, ODD);
}
