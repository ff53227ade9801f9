// optimizer_update by plain gradient descent: gradients, control, header | parameters.

override WEIGHT_DECAY: f32;

@group(0) @binding(0) var<storage, read> gradients: array<Element>;
@group(0) @binding(1) var<storage, read> control: array<f32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> parameters: array<Element>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= arrayLength(&parameters) || control[6] == 0.0 {
        return;
    }
    let parameter = parameters[i];
    let gradient = gradients[i] * control[5] + WEIGHT_DECAY * parameter;
    parameters[i] = parameter - header.lr * gradient;
}
