// The standard normal distribution, for gelu.

// Φ(x) by the complementary error function in Chebyshev form, with a relative error below 1.2e-7
// (Press et al., "Numerical Recipes", section 6.2). Small values keep their precision: the tail is
// never computed as 1 - something.
fn normal_cdf(x: f32) -> f32 {
    let z = abs(x) * 0.70710678;
    let t = 1.0 / (1.0 + 0.5 * z);
    let series = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418
        + t * (-0.18628806 + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587
        + t * (-0.82215223 + t * 0.17087277))))))));
    let tail = 0.5 * t * exp(-z * z + series);
    return select(tail, 1.0 - tail, x >= 0.0);
}

fn normal_density(x: f32) -> f32 {
    return 0.39894228 * exp(-0.5 * x * x);
}
