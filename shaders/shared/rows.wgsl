// Reductions over a row by LANES neighbouring invocations of a workgroup; needs dispatch.wgsl.
//
// LANES is a power of two that divides WORKGROUP_SIZE. With one lane an invocation has a row to itself
// and nothing is shared: that is the form for short rows and for software adapters, where a barrier
// is a switch between coroutines. All invocations must call these functions together.

override LANES: u32 = 1u;

var<workgroup> shared_values: array<f32, WORKGROUP_SIZE>;

// The row of an invocation; there may be more invocations than rows.
fn row_of(grid: Grid) -> u32 {
    return flat_index(grid) / LANES;
}

// The sum of `value` over the lanes of a row, in a fixed order.
fn row_sum(value: f32, grid: Grid) -> f32 {
    if LANES == 1u {
        return value;
    }
    workgroupBarrier();
    shared_values[grid.lane] = value;
    for (var stride = LANES / 2u; stride > 0u; stride >>= 1u) {
        workgroupBarrier();
        if grid.lane % LANES < stride {
            shared_values[grid.lane] += shared_values[grid.lane + stride];
        }
    }
    workgroupBarrier();
    return shared_values[grid.lane - grid.lane % LANES];
}

// The largest `value` over the lanes of a row.
fn row_max(value: f32, grid: Grid) -> f32 {
    if LANES == 1u {
        return value;
    }
    workgroupBarrier();
    shared_values[grid.lane] = value;
    for (var stride = LANES / 2u; stride > 0u; stride >>= 1u) {
        workgroupBarrier();
        if grid.lane % LANES < stride {
            shared_values[grid.lane] =
                max(shared_values[grid.lane], shared_values[grid.lane + stride]);
        }
    }
    workgroupBarrier();
    return shared_values[grid.lane - grid.lane % LANES];
}
