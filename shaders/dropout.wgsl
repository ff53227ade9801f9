// dropout: x, header | y. Zero with a probability of THRESHOLD / 2³², else x SCALE. The key of a
// number depends on nothing but its index, the step and the seed, so the gradient is the same kernel
// over dy.

override THRESHOLD: u32;
override SCALE: f32;
override SALT: u32;

@group(0) @binding(0) var<storage, read> x: array<StoreX>;
@group(0) @binding(1) var<storage, read> header: StepHeader;
@group(0) @binding(2) var<storage, read_write> y: array<StoreY>;

fn is_dropped(number: u32) -> bool {
    let salt = header.seed_low ^ SALT ^ (header.micro_step * 0x9E3779B9u);
    return pcg3d(vec3<u32>(number, header.step + header.seed_high, salt)).x < THRESHOLD;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i < count_of(arrayLength(&y)) {
        y[i] = StoreY(select(Element(x[i]) * SCALE, Element(), dropped(i)));
    }
}
