// The normal distribution of an element that is four numbers; needs gelu.wgsl.

fn cdf_of(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(normal_cdf(x.x), normal_cdf(x.y), normal_cdf(x.z), normal_cdf(x.w));
}

fn density_of(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(
        normal_density(x.x), normal_density(x.y), normal_density(x.z), normal_density(x.w)
    );
}
