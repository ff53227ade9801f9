// Attention that drops weights: the factor on one of them, which depends on nothing but its place, the step and the seed,
// so that the gradient drops the same.

override THRESHOLD: u32;
override KEPT_FACTOR: f32;
override SALT: u32;

@group(0) @binding(HEADER) var<storage, read> header: StepHeader;

fn kept(pair: u32, query: u32, key: u32) -> f32 {
    let salt = header.seed_low ^ SALT ^ (header.micro_step * 0x9E3779B9u) ^ (pair * 0x85EBCA6Bu);
    let number = query * T + key;
    let hash = pcg3d(vec3<u32>(number, header.step + header.seed_high, salt)).x;
    return select(KEPT_FACTOR, 0.0, hash < THRESHOLD);
}
