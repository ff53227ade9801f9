//! Which samples make which batch: a pure function of (seed, epoch, batch), with no table and no state.

use crate::error::{Error, Result};
use crate::permutation::Permutation;

/// Keeps the sampler's stream apart from all others of the same seed.
const SHUFFLE: u64 = u64::from_le_bytes(*b"shuffle.");

/// The order of the samples of every epoch.
///
/// Each epoch visits every sample once. The order is a keyed bijection of `0..len` computed on the
/// spot, so a run can resume at any batch, and no thread can change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Number of samples.
    pub len: usize,
    /// Samples in a full batch.
    pub batch_size: usize,
    /// The run's seed.
    pub seed: u64,
    /// Whether the order changes from epoch to epoch; if not, it is that of the source.
    pub shuffle: bool,
    /// Whether the last batch of an epoch is left out when it is not full.
    pub drop_last: bool,
}

impl Sampler {
    /// A sampler that yields at least one batch an epoch.
    ///
    /// # Errors
    /// When there is no sample, the batch size is 0, or `drop_last` leaves nothing.
    pub fn new(
        len: usize,
        batch_size: usize,
        seed: u64,
        shuffle: bool,
        drop_last: bool,
    ) -> Result<Self> {
        if len == 0 {
            return Err(Error::config("data set", "found 0 samples, expected at least 1"));
        }
        if batch_size == 0 {
            return Err(Error::config("batch size", "found 0, expected at least 1"));
        }
        if drop_last && len < batch_size {
            return Err(Error::config(
                "batch size",
                format!("found {batch_size}, expected at most the {len} samples there are: no batch is full"),
            )
            .hint(format!("--batch-size {len}")));
        }
        Ok(Self { len, batch_size, seed, shuffle, drop_last })
    }

    /// Batches an epoch has.
    pub fn steps_per_epoch(&self) -> usize {
        if self.drop_last { self.len / self.batch_size } else { self.len.div_ceil(self.batch_size) }
    }

    /// Samples of one batch, in order; fewer than `batch_size` only for the last, none past the end.
    pub fn indices(
        &self,
        epoch: u64,
        batch: usize,
    ) -> impl ExactSizeIterator<Item = usize> + use<> {
        let start = batch.saturating_mul(self.batch_size).min(self.len);
        let end = start.saturating_add(self.batch_size).min(self.len);
        let end = if batch < self.steps_per_epoch() { end } else { start };
        let order =
            self.shuffle.then(|| Permutation::keyed(self.len, &[self.seed, epoch, SHUFFLE]));
        (start..end).map(move |i| order.as_ref().map_or(i, |order| order.apply(i)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_those_of_all_versions_before() {
        assert_eq!(order(1000, 1, 2)[..8], [918, 645, 701, 320, 283, 614, 290, 954]);
        let last = [55226, 53209, 33394, 27590, 42737, 15094, 15575, 6291];
        assert_eq!(order(60_000, 7, 0)[59_992..], last);
    }

    fn order(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
        let sampler = Sampler::new(len, 7, seed, true, false).unwrap();
        (0..sampler.steps_per_epoch()).flat_map(|b| sampler.indices(epoch, b)).collect()
    }

    #[test]
    fn every_epoch_visits_every_sample_once() {
        for len in (1..300).chain([60_000]) {
            for (seed, epoch) in [(0, 0), (1, 0), (u64::MAX, 3)] {
                let mut seen = order(len, seed, epoch);
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..len), "len {len}, seed {seed}, epoch {epoch}");
            }
        }
    }

    #[test]
    fn orders_depend_on_seed_and_epoch_and_on_nothing_else() {
        assert_eq!(order(1000, 1, 2), order(1000, 1, 2));
        assert_ne!(order(1000, 1, 2), order(1000, 1, 3));
        assert_ne!(order(1000, 1, 2), order(1000, 2, 2));
        // The batch size only cuts the same order elsewhere, and any batch can be asked for alone.
        let other = Sampler::new(1000, 64, 1, true, false).unwrap();
        assert!(other.indices(2, 3).eq(order(1000, 1, 2)[192..256].iter().copied()));
    }

    /// Pearson's χ² over (position, sample), for lengths around the grid's edges; with n² cells and
    /// (n − 1)² degrees of freedom it stays below the mean plus five deviations.
    #[test]
    fn every_sample_is_as_likely_at_every_position() {
        for len in [5usize, 16, 17, 23] {
            let draws = 4000;
            let mut counts = vec![0f64; len * len];
            for seed in 0..draws {
                let order = order(len, seed, 0);
                order.iter().enumerate().for_each(|(at, &i)| counts[at * len + i] += 1.0);
            }
            let expected = draws as f64 / len as f64;
            let chi2: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
            let degrees = ((len - 1) * (len - 1)) as f64;
            assert!(
                chi2 < degrees + 5.0 * (2.0 * degrees).sqrt(),
                "len {len}: {chi2} of {degrees}"
            );
        }
    }

    #[test]
    fn neighbours_are_parted() {
        let order = order(60_000, 1, 0);
        let close = order.windows(2).filter(|w| w[0].abs_diff(w[1]) < 300).count();
        // 600 of 60,000 places are that close, so about 600 pairs by chance.
        assert!((450..750).contains(&close), "{close}");
    }

    #[test]
    fn the_last_batch_is_partial_or_dropped() {
        let keep = Sampler::new(10, 4, 0, false, false).unwrap();
        assert_eq!(keep.steps_per_epoch(), 3);
        assert!(keep.indices(0, 2).eq([8, 9]));
        assert_eq!(keep.indices(0, 3).len(), 0);
        let drop = Sampler::new(10, 4, 0, false, true).unwrap();
        assert_eq!(drop.steps_per_epoch(), 2);
        assert!(drop.indices(5, 1).eq(4..8));
        assert_eq!(drop.indices(0, 2).len(), 0);
    }

    #[test]
    fn what_would_yield_nothing_is_refused() {
        let message =
            |len, batch, drop| Sampler::new(len, batch, 0, true, drop).unwrap_err().to_string();
        assert_eq!(message(0, 4, false), "config: data set: found 0 samples, expected at least 1");
        assert_eq!(message(3, 0, false), "config: batch size: found 0, expected at least 1");
        assert_eq!(
            message(3, 4, true),
            "config: batch size: found 4, expected at most the 3 samples there are: no batch is full; try --batch-size 3"
        );
        assert!(Sampler::new(3, 4, 0, true, false).is_ok());
    }
}
