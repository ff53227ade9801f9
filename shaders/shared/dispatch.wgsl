// Where an invocation stands. A grid of more workgroups than one dimension may hold is folded into
// two, so shaders count workgroups and invocations by these functions and guard the tail.

override WORKGROUP_SIZE: u32 = 64u;

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
