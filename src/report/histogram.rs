//! Times by the million in a few kilobytes: buckets that each span the same ratio, from which quantiles follow to within
//! that ratio, whatever their spread (the idea of HDR histograms).

use serde::{Deserialize, Serialize};

/// Buckets of a doubling: a quantile is right to 1.1 %, half a bucket to either side.
const PER_OCTAVE: usize = 32;
/// The shortest time that has a bucket of its own, in seconds.
const LEAST_S: f64 = 1e-6;
/// Doublings above it: up to 10 days.
const OCTAVES: usize = 40;

/// Counts of times by their length.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u32>,
    count: u64,
}

/// What most and what few of some times are at most, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many there are.
    pub count: u64,
    /// Half of them take at most this long.
    pub p50_s: f64,
    /// 95 of 100 do.
    pub p95_s: f64,
    /// 99 of 100 do.
    pub p99_s: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; PER_OCTAVE * OCTAVES], count: 0 }
    }
}

impl Histogram {
    /// Counts a time.
    pub fn add(&mut self, seconds: f64) {
        let place = (seconds.max(LEAST_S) / LEAST_S).log2() * PER_OCTAVE as f64;
        let bucket = (place as usize).min(self.buckets.len() - 1);
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
        self.count += 1;
    }

    /// The time that a `share` of all times does not exceed; 0 without any.
    fn quantile(&self, share: f64) -> f64 {
        let wanted = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if seen >= wanted {
                // The middle of the bucket, by ratio.
                return LEAST_S * ((i as f64 + 0.5) / PER_OCTAVE as f64).exp2();
            }
        }
        0.0
    }

    /// Median and tail.
    pub fn quantiles(&self) -> Quantiles {
        let [p50_s, p95_s, p99_s] = [0.5, 0.95, 0.99].map(|share| self.quantile(share));
        Quantiles { count: self.count, p50_s, p95_s, p99_s }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_hundredth_or_so() {
        let mut times: Vec<f64> =
            crate::testing::normal(5, 10_000).iter().map(|x| 0.02 * (0.8 * x).exp()).collect();
        let mut histogram = Histogram::default();
        times.iter().for_each(|&time| histogram.add(time));
        times.sort_by(f64::total_cmp);
        let found = histogram.quantiles();
        let expected = [times[4999], times[9499], times[9899]];
        crate::testing::assert_close(
            &[found.p50_s, found.p95_s, found.p99_s],
            &expected,
            0.0,
            0.011,
        );
        assert_eq!(found.count, 10_000);
    }

    #[test]
    fn what_is_out_of_range_is_counted_at_its_end() {
        assert_eq!(Histogram::default().quantiles(), Quantiles::default());
        let mut histogram = Histogram::default();
        [0.0, -1.0, 1e-9].iter().for_each(|&time| histogram.add(time));
        assert!(histogram.quantiles().p99_s < 1.1e-6);
        [1e12, f64::INFINITY, 1e12, 1e12].iter().for_each(|&time| histogram.add(time));
        let most = histogram.quantiles().p99_s;
        assert!(most.is_finite() && most > 1e5, "{most}");
    }
}
