// optimizer_control: partials | control[10]: 1 - β₁ᵗ, 1 - β₂ᵗ, applied, skipped, norm, factor, apply,
// skipped in a row, powers of two that the loss scale moved, applied since it last did. One workgroup,
// all of whose invocations are the lanes of one row.

override MAX_NORM: f32;
override BETA1: f32;
override BETA2: f32;
// Whether the gradients are those of a scaled loss, and how its scale moves.
override SCALED: bool;
override LOG2_MIN: i32;
override LOG2_MAX: i32;
override GROWTH_INTERVAL: u32;

@group(0) @binding(0) var<storage, read> partials: array<f32>;
@group(0) @binding(1) var<storage, read_write> control: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    var sum = 0.0;
    for (var i = grid.lane; i < arrayLength(&partials); i += WORKGROUP_SIZE) {
        sum += partials[i];
    }
    sum = row_sum(sum, grid);
    if grid.lane != 0u {
        return;
    }
    let scale = select(1.0, loss_scale(control[8]), SCALED);
    let norm = sqrt(sum) / scale;
    control[4] = norm;
    // By its bits: compilers may assume that no value is infinite or NaN.
    if (bitcast<u32>(sum) & 0x7f800000u) == 0x7f800000u {
        if SCALED {
            control[8] = max(control[8] - 1.0, f32(LOG2_MIN - LOG2_START));
            control[9] = 0.0;
        }
        control[3] += 1.0;
        control[5] = 1.0;
        control[6] = 0.0;
        control[7] += 1.0;
        return;
    }
    control[0] = control[0] * BETA1 + (1.0 - BETA1);
    control[1] = control[1] * BETA2 + (1.0 - BETA2);
    control[2] += 1.0;
    control[5] = min(1.0, MAX_NORM / (norm + 1e-6)) / scale;
    control[6] = 1.0;
    control[7] = 0.0;
    if SCALED {
        control[9] += 1.0;
        if control[9] >= f32(GROWTH_INTERVAL) {
            control[8] = min(control[8] + 1.0, f32(LOG2_MAX - LOG2_START));
            control[9] = 0.0;
        }
    }
}
