// optimizer_update by gradient descent with momentum, as torch.optim.SGD without dampening:
// gradients, control, header | parameters, first.

override WEIGHT_DECAY: f32;
override MOMENTUM: f32;
override NESTEROV: bool;

@group(0) @binding(0) var<storage, read> gradients: array<Element>;
@group(0) @binding(1) var<storage, read> control: array<f32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> parameters: array<Element>;
@group(0) @binding(4) var<storage, read_write> first: array<Element>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= arrayLength(&parameters) || control[6] == 0.0 {
        return;
    }
    let parameter = parameters[i];
    let gradient = gradients[i] * control[5] + WEIGHT_DECAY * parameter;
    let moment = MOMENTUM * first[i] + gradient;
    first[i] = moment;
    let descent = select(moment, gradient + MOMENTUM * moment, NESTEROV);
    parameters[i] = parameter - header.lr * descent;
}
