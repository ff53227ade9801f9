// muon_momentum: gradients, control | direction, momentum. The average of gradients moves on, unless the update is skipped,
// and the direction of the update follows from it, as in torch.optim.Muon.

override MOMENTUM: f32;
override NESTEROV: bool;

@group(0) @binding(0) var<storage, read> gradients: array<Element>;
@group(0) @binding(1) var<storage, read> control: array<f32>;
@group(0) @binding(2) var<storage, read_write> direction: array<Element>;
@group(0) @binding(3) var<storage, read_write> momentum: array<Element>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= arrayLength(&momentum) {
        return;
    }
    var average = momentum[i];
    if control[6] == 0.0 {
        direction[i] = average;
        return;
    }
    let gradient = control[5] * gradients[i];
    average += (1.0 - MOMENTUM) * (gradient - average);
    momentum[i] = average;
    direction[i] = select(average, gradient + MOMENTUM * (average - gradient), NESTEROV);
}
