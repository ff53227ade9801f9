// optimizer_update by Adam or, DECOUPLED, AdamW: gradients, control, header | parameters, first, second.

override BETA1: f32;
override BETA2: f32;
override EPS: f32;
override WEIGHT_DECAY: f32;
override DECOUPLED: bool;

@group(0) @binding(0) var<storage, read> gradients: array<Element>;
@group(0) @binding(1) var<storage, read> control: array<f32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> parameters: array<Element>;
@group(0) @binding(4) var<storage, read_write> first: array<Element>;
@group(0) @binding(5) var<storage, read_write> second: array<Element>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= arrayLength(&parameters) || control[6] == 0.0 {
        return;
    }
    var parameter = parameters[i];
    var gradient = gradients[i] * control[5];
    if DECOUPLED {
        parameter -= header.lr * WEIGHT_DECAY * parameter;
    } else {
        gradient += WEIGHT_DECAY * parameter;
    }
    let m = BETA1 * first[i] + (1.0 - BETA1) * gradient;
    let v = BETA2 * second[i] + (1.0 - BETA2) * gradient * gradient;
    first[i] = m;
    second[i] = v;
    // The corrections for moments that began at 0 (Kingma and Ba, 2015, section 3).
    let root = sqrt(v) / sqrt(control[1]) + EPS;
    parameters[i] = parameter - header.lr / control[0] * m / root;
}
