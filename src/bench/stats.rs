//! How sure a median is, and whether two of them differ: bootstrap intervals (Efron, 1979), the test of Mann and Whitney
//! (1947), and the share of false discoveries held down over many comparisons (Benjamini and Hochberg, 1995). Nothing here
//! takes times for normally distributed, which they are not.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// Resamples of a bootstrap: the ends of an interval then move by less than it is wide.
const RESAMPLES: usize = 2000;
/// Share of the resamples within an interval.
const CONFIDENCE: f64 = 0.95;
/// Values of each side up to which the test of Mann and Whitney counts all orders, instead of taking them for normal.
const EXACT_MAX: usize = 25;

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Estimate {
    /// The median of some values, and a percentile bootstrap of it; zeros without any.
    pub fn of(values: &[f64]) -> Self {
        Self::bootstrap(median(values), |rng| resampled_median(values, rng))
    }

    /// `median(b) / median(a)`, of values that are independent of each other.
    pub fn ratio(a: &[f64], b: &[f64]) -> Self {
        Self::bootstrap(median(b) / median(a), |rng| {
            resampled_median(b, rng) / resampled_median(a, rng)
        })
    }

    /// Half the interval's width, as a share of the median.
    pub fn spread(&self) -> f64 {
        if self.median > 0.0 { (self.high - self.low) / (2.0 * self.median) } else { 0.0 }
    }

    fn bootstrap(median: f64, mut resample: impl FnMut(&mut Rng) -> f64) -> Self {
        // The same numbers give the same interval.
        let mut rng = Rng::keyed(&[0xb007]);
        let mut found: Vec<f64> = (0..RESAMPLES).map(|_| resample(&mut rng)).collect();
        found.sort_by(f64::total_cmp);
        let at = |share: f64| found[((share * RESAMPLES as f64) as usize).min(RESAMPLES - 1)];
        let tail = (1.0 - CONFIDENCE) / 2.0;
        Self { median, low: at(tail), high: at(1.0 - tail) }
    }
}

/// The median; 0 without values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

fn resampled_median(values: &[f64], rng: &mut Rng) -> f64 {
    let drawn: Vec<f64> =
        values.iter().map(|_| values[rng.below(values.len() as u64) as usize]).collect();
    median(&drawn)
}

/// The probability that values from one and the same distribution differ as much as `a` and `b` do, or more (two-sided).
/// 1 where a side is empty.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    // How often a value of `b` is above one of `a`; equal ones count half.
    let above = |y: f64| {
        a.iter()
            .map(|&x| match x.total_cmp(&y) {
                std::cmp::Ordering::Less => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Greater => 0.0,
            })
            .sum::<f64>()
    };
    let u: f64 = b.iter().map(|&y| above(y)).sum();
    let mut all: Vec<f64> = a.iter().chain(b).copied().collect();
    all.sort_by(f64::total_cmp);
    let ties = all.windows(2).any(|pair| pair[0] == pair[1]);
    if !ties && a.len().max(b.len()) <= EXACT_MAX {
        return exact(a.len(), b.len(), u);
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let tied: f64 =
        all.chunk_by(|x, y| x == y).map(|run| (run.len() as f64).powi(3) - run.len() as f64).sum();
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - tied / (total * (total - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let z = ((u - n * m / 2.0).abs() - 0.5).max(0.0) / variance.sqrt();
    libm::erfc(z / std::f64::consts::SQRT_2).min(1.0)
}

/// Two-sided, from the number of orders of `n` and `m` values that have each count.
fn exact(n: usize, m: usize, u: f64) -> f64 {
    // orders[j][u]: of i values of `a` and j of `b`, in how many orders `b` is above `a` u times.
    let most = n * m;
    let mut orders = vec![vec![0.0f64; most + 1]; m + 1];
    orders.iter_mut().for_each(|counts| counts[0] = 1.0);
    for i in 1..=n {
        let before = orders.clone();
        for j in 1..=m {
            for u in 0..=most {
                // The greatest of all is of `b`, above all i of `a`; or of `a`.
                let of_b = if u >= i { orders[j - 1][u - i] } else { 0.0 };
                orders[j][u] = of_b + before[j][u];
            }
        }
    }
    let counts = &orders[m];
    let all: f64 = counts.iter().sum();
    let low = u.min(most as f64 - u) as usize;
    let tail: f64 = counts[..=low].iter().sum();
    (2.0 * tail / all).min(1.0)
}

/// Which of these probabilities are discoveries, of which at most a share of `rate` is expected to be false.
pub fn discoveries(p: &[f64], rate: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let passes = |(rank, &i): (usize, &usize)| p[i] <= rate * (rank + 1) as f64 / p.len() as f64;
    let last = (0..order.len()).rev().find(|&rank| passes((rank, &order[rank])));
    let mut found = vec![false; p.len()];
    order.iter().take(last.map_or(0, |last| last + 1)).for_each(|&i| found[i] = true);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, normal};

    #[test]
    fn probabilities_are_those_of_scipy() {
        // scipy.stats.mannwhitneyu(a, b, method="exact") and ("asymptotic") for the last.
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]);
        assert_close(&[mann_whitney(&a, &b)], &[0.007_936_507_936_507_936], 1e-15, 0.0);
        let (a, b) = ([1.0, 4.0, 6.0, 7.5], [2.0, 3.0, 8.0, 9.0, 10.0, 11.0]);
        assert_close(&[mann_whitney(&a, &b)], &[9.0 / 35.0], 1e-15, 0.0);
        let (a, b) = ([1.0, 2.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0, 5.0]);
        assert_close(&[mann_whitney(&a, &b)], &[0.078_545_850_951_190_67], 1e-9, 0.0);
        assert_eq!(mann_whitney(&[1.0; 4], &[1.0; 4]), 1.0);
        assert_eq!(mann_whitney(&[], &[1.0]), 1.0);
    }

    #[test]
    fn what_is_the_same_is_rarely_told_apart_and_a_tenth_is() {
        let draw =
            |key: u64| -> Vec<f64> { normal(key, 9).iter().map(|x| 1.0 + 0.02 * x).collect() };
        let (mut false_alarms, mut found, mut held) = (0, 0, 0);
        for key in 0..400 {
            let (a, b) = (draw(2 * key), draw(2 * key + 1));
            let slower: Vec<f64> = b.iter().map(|x| 1.1 * x).collect();
            false_alarms += usize::from(mann_whitney(&a, &b) < 0.05);
            found += usize::from(mann_whitney(&a, &slower) < 0.05);
            let interval = Estimate::ratio(&a, &slower);
            held += usize::from((interval.low..=interval.high).contains(&1.1));
        }
        // One in twenty, give or take four standard deviations.
        assert!((3..=38).contains(&false_alarms), "{false_alarms} of 400");
        assert!(found > 390, "{found} of 400");
        // A bootstrap of few values is somewhat too narrow.
        assert!((340..=398).contains(&held), "{held} of 400");
    }

    #[test]
    fn false_discoveries_are_held_down() {
        assert_eq!(discoveries(&[0.001, 0.2, 0.03, 0.9], 0.05), [true, false, false, false]);
        // Where all are small together, none is taken for chance.
        assert_eq!(discoveries(&[0.04; 5], 0.05), [true; 5]);
        assert!(discoveries(&[], 0.05).is_empty());
    }

    #[test]
    fn intervals_hold_the_median() {
        let one = Estimate::of(&[2.0]);
        assert_eq!((one.median, one.low, one.high, one.spread()), (2.0, 2.0, 2.0, 0.0));
        let found = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 100.0]);
        assert!(found.low >= 1.0 && found.low <= 3.0 && found.median == 3.0 && found.high >= 4.0);
    }
}
