//! Quantiles of Beta(α, α), the distribution of mixup's and cutmix's shares.

/// The quantiles of Beta(α, α) in the middle of `count` intervals of equal probability, ascending: to take one of
/// them with equal probability is to draw from the distribution, up to the width of an interval.
///
/// By symmetry those above ½ are 1 minus those below. α is up to 1000.
pub fn midpoint_quantiles(alpha: f64, count: usize) -> Vec<f64> {
    let quantile = |i: usize| lower_quantile(alpha, (i as f64 + 0.5) / count as f64);
    let lower: Vec<f64> = (0..count.div_ceil(2)).map(quantile).collect();
    (0..count)
        .map(|i| if i < lower.len() { lower[i] } else { 1.0 - lower[count - 1 - i] })
        .collect()
}

/// The x up to ½ below which Beta(α, α) falls with probability `p`, which is at most ½.
fn lower_quantile(alpha: f64, p: f64) -> f64 {
    let half = fraction(alpha, 0.5);
    // I(x) / I(½), where I(½) is ½ by symmetry: so no gamma function is needed.
    let cdf = |x: f64| 0.5 * (4.0 * x * (1.0 - x)).powf(alpha) * fraction(alpha, x) / half;
    let (mut low, mut high) = (0.0, 0.5);
    // Halved to 2⁻⁴⁸, far below what an `f32` near 1 can tell.
    for _ in 0..48 {
        let middle = 0.5 * (low + high);
        if cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The continued fraction of the incomplete beta function for a = b = α (Abramowitz and Stegun, 26.5.8), from
/// its far end. For x up to ½ each pair of terms gains at least a factor of 5 once their number is above √α.
fn fraction(alpha: f64, x: f64) -> f64 {
    let pairs = 24 + (3.0 * alpha.sqrt()) as usize;
    let mut rest = 0.0;
    for m in (0..pairs).rev().map(|m| m as f64) {
        let two = alpha + 2.0 * m;
        let even = (m + 1.0) * (alpha - m - 1.0) * x / ((two + 1.0) * (two + 2.0));
        let odd = -(alpha + m) * (2.0 * alpha + m) * x / (two * (two + 1.0));
        rest = odd / (1.0 + even / (1.0 + rest));
    }
    1.0 / (1.0 + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn known_distributions_have_their_quantiles() {
        let n = 1024;
        let at = |i: usize| (i as f64 + 0.5) / n as f64;
        // Uniform; the arcsine distribution, whose quantile is sin²(πu/2); and x²(3 - 2x).
        let uniform: Vec<f64> = (0..n).map(at).collect();
        assert_close(&midpoint_quantiles(1.0, n), &uniform, 1e-13, 0.0);
        let arcsine: Vec<f64> =
            (0..n).map(|i| (std::f64::consts::FRAC_PI_2 * at(i)).sin().powi(2)).collect();
        assert_close(&midpoint_quantiles(0.5, n), &arcsine, 1e-13, 0.0);
        let back: Vec<f64> =
            midpoint_quantiles(2.0, n).iter().map(|x| x * x * (3.0 - 2.0 * x)).collect();
        assert_close(&back, &uniform, 1e-13, 0.0);
    }

    /// By mpmath with 30 digits: the quantiles 0, 100, 300 and 511 of 1024.
    #[test]
    fn quantiles_agree_with_another_implementation() {
        let references = [
            (0.05, [0.0, 6.677638247099431e-15, 2.1786256826766666e-05, 0.4947869349947727]),
            (
                0.2,
                [
                    6.877987748408947e-16,
                    0.00022561935599372743,
                    0.052049931519949126,
                    0.4984695709319606,
                ],
            ),
            (
                0.8,
                [
                    9.245166953983945e-05,
                    0.06941960040453825,
                    0.2662581272619604,
                    0.49943865048211955,
                ],
            ),
            (
                8.0,
                [0.14529078348599658, 0.3402740989973046, 0.4313457382784065, 0.4998445998095738],
            ),
            (
                100.0,
                [0.3848536449521628, 0.4543523953081321, 0.48077406078273627, 0.49995667306557534],
            ),
            (
                1000.0,
                [0.4631817090624453, 0.4855540127656131, 0.49392503676689375, 0.4999863142253843],
            ),
        ];
        for (alpha, expected) in references {
            let found = midpoint_quantiles(alpha, 1024);
            assert_close(&[found[0], found[100], found[300], found[511]], &expected, 1e-13, 0.0);
        }
    }

    #[test]
    fn mean_and_variance_are_those_of_the_distribution() {
        for alpha in [0.05, 0.2, 0.4, 1.0, 8.0, 1000.0] {
            let x = midpoint_quantiles(alpha, 1024);
            let mean = x.iter().sum::<f64>() / 1024.0;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1024.0;
            assert_close(&[mean], &[0.5], 1e-12, 0.0);
            assert_close(&[variance], &[0.25 / (2.0 * alpha + 1.0)], 0.0, 0.01);
            assert!(x.windows(2).all(|pair| pair[0] <= pair[1]), "ascending at {alpha}");
        }
        assert_close(&midpoint_quantiles(0.3, 1), &[0.5], 1e-14, 0.0);
    }
}
