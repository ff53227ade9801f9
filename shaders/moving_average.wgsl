// moving_average: parameters, control | average. Moves a SHARE of the way towards the parameters after an
// update that was applied; after the first one it becomes them.

override SHARE: f32;

@group(0) @binding(0) var<storage, read> parameters: array<Element>;
@group(0) @binding(1) var<storage, read> control: array<f32>;
@group(0) @binding(2) var<storage, read_write> average: array<Element>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= arrayLength(&average) || control[6] == 0.0 {
        return;
    }
    let before = average[i];
    let moved = before + SHARE * (parameters[i] - before);
    average[i] = select(moved, parameters[i], control[2] == 1.0);
}
