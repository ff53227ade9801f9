// matrix_multiply: x[2] | y[4 · workgroups · 128]. What the matrix units can do when nothing else is asked
// for: each of four subgroups of 32 has CHAINS sums of 16 by 16 that do not wait for one another, and adds
// products of the same two squares to them, ROUNDS times. Every sum begins as another square, so that none is
// computed only once for several.

override ROUNDS: u32;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

var<workgroup> square: array<vec4<f16>, 64>;
// A square of results of each subgroup.
var<workgroup> corner: array<vec4<f32>, 256>;

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) team: u32,
) {
    if lane < 64u {
        square[lane] = vec4<f16>(vec4<f32>(x[0], x[1], x[0], x[1]));
    }
    corner[lane] = vec4<f32>(f32(lane));
    corner[lane + 128u] = vec4<f32>(f32(lane) + 128.0);
    workgroupBarrier();
    let a = coopLoadT<coop_mat16x16<f16, A>>(&square[0], 4u);
    let b = coopLoad<coop_mat16x16<f16, B>>(&square[0], 4u);
    var sums: array<coop_mat16x16<f32, C>, CHAINS>;
    for (var c = 0u; c < CHAINS; c++) {
        sums[c] = coopLoadT<coop_mat16x16<f32, C>>(&corner[16u * c], 4u);
    }
    workgroupBarrier();
    for (var round = 0u; round < ROUNDS; round++) {
        for (var c = 0u; c < CHAINS; c++) {
            sums[c] = coopMultiplyAdd(a, b, sums[c]);
        }
    }
    var total = vec4<f32>();
    for (var c = 0u; c < CHAINS; c++) {
        coopStoreT(sums[c], &corner[64u * team], 4u);
        workgroupBarrier();
        total += corner[lane] + corner[lane + 128u];
        workgroupBarrier();
    }
    let i = id.x * 128u + lane;
    if i < arrayLength(&y) {
        y[i] = total;
    }
}
