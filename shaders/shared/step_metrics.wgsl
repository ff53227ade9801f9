// What both forms of step_metrics share: sums over the valid rows by one workgroup, all of whose
// invocations are the lanes of one row. Needs rows.wgsl, header.wgsl.

override ROWS: u32;

@group(0) @binding(0) var<storage, read> loss: array<f32>;
