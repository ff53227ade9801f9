// The normal distribution of an element that is one number; needs gelu.wgsl.

fn cdf_of(x: f32) -> f32 {
    return normal_cdf(x);
}

fn density_of(x: f32) -> f32 {
    return normal_density(x);
}
