// muon_update: direction, control, header | parameters. Decay and a step against the direction, unless the update is skipped.

override WEIGHT_DECAY: f32;
override SCALE: f32;

@group(0) @binding(0) var<storage, read> direction: array<StoreX>;
@group(0) @binding(1) var<storage, read> control: array<f32>;
@group(0) @binding(2) var<storage, read> header: StepHeader;
@group(0) @binding(3) var<storage, read_write> parameters: array<Element>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < arrayLength(&parameters) && control[6] != 0.0 {
        let kept = (1.0 - header.lr * WEIGHT_DECAY) * parameters[i];
        parameters[i] = kept - header.lr * SCALE * Element(direction[i]);
    }
}
