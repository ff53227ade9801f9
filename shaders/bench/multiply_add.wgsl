// multiply_add: x[2] | y[invocations]. What the arithmetic can do when nothing else is asked for: CHAINS
// sums that do not wait for one another, all in registers, for ROUNDS rounds of sixteen multiply-adds
// each. The two factors come from memory, so that no compiler can know the result, and every sum begins
// as another number, so that none is computed only once for several.
//
// Needs `Number`, four numbers of the type in question.

override ROUNDS: u32;
override FUSED: bool;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

fn step(sum: Number, factor: Number, term: Number) -> Number {
    if FUSED {
        return fma(sum, factor, term);
    }
    return sum * factor + term;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= arrayLength(&y) {
        return;
    }
    let first = vec4<f32>(x[0], x[1], x[0], x[1]);
    let factor = Number(first);
    let term = Number(first.yxyx * f32(i % 7u));
    var sums: array<Number, CHAINS>;
    for (var c = 0u; c < CHAINS; c++) {
        sums[c] = term + Number(vec4<f32>(0.0, 0.25, 0.5, 0.75) + f32(c));
    }
    for (var round = 0u; round < ROUNDS; round++) {
        for (var again = 0u; again < 16u; again++) {
            for (var c = 0u; c < CHAINS; c++) {
                sums[c] = step(sums[c], factor, term);
            }
        }
    }
    var total = Number(vec4<f32>());
    for (var c = 0u; c < CHAINS; c++) {
        total += sums[c];
    }
    y[i] = f32(total.x + total.y + total.z + total.w);
}
