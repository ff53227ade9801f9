//! `--val-split`: some of the training part is held out, as many of each class as there are for it.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::permutation::Permutation;
use crate::source::open::Dataset;
use crate::source::{ENDLESS, Source, Subset, no_stream};

/// Keeps the choice of the held-out samples apart from all other randomness of the same seed.
const SPLIT: u64 = u64::from_le_bytes(*b"valsplit");

impl Dataset {
    /// Holds a share of the training part out, as [`validation`](Self::validation): of each class as many samples as
    /// its share is (by largest remainder), where the classes are known without reading; else of all together. Which
    /// ones depends on `seed` alone, and both parts keep the order of the source. What is fitted to samples is fitted
    /// to those that are trained on, see [`fit_on`](Self::fit_on).
    ///
    /// Means and deviations of images stay those that the source came with.
    ///
    /// # Errors
    /// When the fraction is not between 0 and 1, or a part would have no sample, or a class none to train on.
    pub fn split(mut self, fraction: f64, seed: u64) -> Result<Self> {
        let (kept, held) = choose(&*self.train, fraction, seed)?;
        self.fit_on(&kept.iter().map(|&row| row as usize).collect::<Vec<_>>())?;
        let train = self.train;
        let name = train.info().name.clone();
        let held_name = format!("{} (val)", name.strip_suffix(" (train)").unwrap_or(&name));
        Ok(Self {
            validation: Some(Arc::new(Subset::of_rows(train.clone(), held, held_name)?)),
            train: Arc::new(Subset::of_rows(train, kept, name)?),
            ..self
        })
    }
}

/// Checks what of a share can be checked without the data.
pub(crate) fn check_share(fraction: f64) -> Result<()> {
    if fraction > 0.0 && fraction < 1.0 {
        return Ok(());
    }
    let message = format!("found {fraction}, expected a share above 0 and below 1");
    Err(Error::config("--val-split", message).hint("--val-split 0.1"))
}

/// The samples to train on and those held out, each in ascending order.
fn choose(source: &dyn Source, fraction: f64, seed: u64) -> Result<(Vec<u32>, Vec<u32>)> {
    check_share(fraction)?;
    let wrong = |message| Error::config("--val-split", message);
    let len = source.len();
    if len == ENDLESS {
        return Err(no_stream(source, "to hold samples out of"));
    }
    if u32::try_from(len).is_err() {
        return Err(wrong(format!("found {len} samples, expected at most {}", u32::MAX)));
    }
    let total = (fraction * len as f64).round() as usize;
    if total == 0 || total == len {
        let message =
            format!("{fraction} of {len} samples are {total}, expected some in each part");
        return Err(wrong(message).hint("more samples, or another share"));
    }
    let groups = by_class(source);
    let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
    let counts = apportion(&sizes, total).ok_or_else(|| {
        let classes = groups.iter().filter(|group| !group.is_empty()).count();
        let message = format!(
            "{total} of {len} samples in {classes} classes leave a class without a sample to train on"
        );
        wrong(message).hint("a smaller share, or more samples of the rare classes")
    })?;
    let mut is_held = vec![false; len];
    for (class, (group, &count)) in groups.iter().zip(&counts).enumerate() {
        let order = Permutation::keyed(group.len(), &[seed, SPLIT, class as u64]);
        (0..count).for_each(|i| is_held[group[order.apply(i)] as usize] = true);
    }
    Ok((0..len as u32).partition(|&row| !is_held[row as usize]))
}

/// The samples of each class, or all in one group where a class is not known.
fn by_class(source: &dyn Source) -> Vec<Vec<u32>> {
    let mut groups = vec![Vec::new(); source.spec().classes().unwrap_or(0)];
    for index in 0..source.len() {
        let class = source.class(index).map(|class| class as usize);
        match class.and_then(|class| groups.get_mut(class)) {
            Some(group) => group.push(index as u32),
            None => return vec![(0..source.len() as u32).collect()],
        }
    }
    groups
}

/// How many of each group, `total` together: its share rounded down, and one more for the largest remainders, the
/// first of equal ones. One of each group is left. `None` where that cannot be.
fn apportion(sizes: &[usize], total: usize) -> Option<Vec<usize>> {
    let len: usize = sizes.iter().sum();
    let (product, len) = (|size: usize| size as u128 * total as u128, len as u128);
    let mut counts: Vec<usize> = sizes.iter().map(|&size| (product(size) / len) as usize).collect();
    let mut by_remainder: Vec<usize> = (0..sizes.len()).collect();
    by_remainder.sort_by_key(|&i| std::cmp::Reverse(product(sizes[i]) % len));
    let mut left = total - counts.iter().sum::<usize>();
    // One round, unless there are groups that have none to give.
    while left > 0 {
        let before = left;
        for &i in &by_remainder {
            if left > 0 && counts[i] + 1 < sizes[i] {
                counts[i] += 1;
                left -= 1;
            }
        }
        if left == before {
            return None;
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, SampleSpec, TargetSpec};
    use crate::source::resident::{Inputs, Targets};
    use crate::source::{Resident, Sample, SourceInfo};

    /// Samples whose one byte is their number modulo 256.
    fn dataset(labels: &[u32], classes: usize) -> Dataset {
        let spec = SampleSpec {
            input_shape: vec![1],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes },
        };
        let info = SourceInfo { name: "numbers (train)".into(), ..Default::default() };
        let bytes = Inputs::Bytes((0..labels.len()).map(|i| i as u8).collect());
        let source = Resident::new(spec, info, bytes, Targets::Classes(labels.to_vec()));
        Dataset::new("numbers", "numbers", Arc::new(source.expect("fits")), None)
    }

    fn classes_of(source: &dyn Source) -> Vec<usize> {
        let mut counts = vec![0; source.spec().classes().expect("classes")];
        (0..source.len()).for_each(|i| counts[source.class(i).expect("known") as usize] += 1);
        counts
    }

    fn inputs(source: &dyn Source) -> Vec<u8> {
        let mut scratch = Vec::new();
        (0..source.len()).map(|i| source.read(i, &mut scratch).expect("reads").input[0]).collect()
    }

    fn parts(dataset: &Dataset, fraction: f64, seed: u64) -> (Vec<u8>, Vec<u8>) {
        let split = dataset.clone().split(fraction, seed).expect("splits");
        (inputs(&*split.train), inputs(&**split.validation.as_ref().expect("held out")))
    }

    #[test]
    fn both_parts_together_are_everything_in_order() {
        let labels: Vec<u32> = (0..200).map(|i| i * i % 7 % 3).collect();
        let dataset = dataset(&labels, 3);
        for fraction in [0.01, 0.1, 0.25, 0.5, 0.9] {
            let (train, held) = parts(&dataset, fraction, 3);
            assert_eq!(held.len(), (200.0 * fraction) as usize);
            assert!(train.is_sorted() && held.is_sorted());
            let mut all = [train, held].concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..200));
        }
    }

    #[test]
    fn every_class_gives_its_share_by_largest_remainder() {
        let labels: Vec<u32> = [0; 50].into_iter().chain([1; 33]).chain([2; 17]).collect();
        let split = dataset(&labels, 4).split(0.1, 5).expect("splits");
        // 5, 3.3 and 1.7 of 10: the one that is left goes to the largest remainder.
        assert_eq!(classes_of(&**split.validation.as_ref().expect("held out")), [5, 3, 2, 0]);
        assert_eq!(classes_of(&*split.train), [45, 30, 15, 0]);
        assert_eq!(split.train.info().name, "numbers (train)");
        assert_eq!(split.validation.expect("held out").info().name, "numbers (val)");
    }

    #[test]
    fn the_seed_alone_decides_which_ones() {
        let labels: Vec<u32> = (0..200).map(|i| i % 4).collect();
        let dataset = dataset(&labels, 4);
        assert_eq!(parts(&dataset, 0.2, 1), parts(&dataset, 0.2, 1));
        assert_ne!(parts(&dataset, 0.2, 1), parts(&dataset, 0.2, 2));
        // Every sample is as likely to be held out: 200 draws of a share of 0.2 each, five deviations wide.
        let mut counts = [0usize; 200];
        for seed in 0..200 {
            parts(&dataset, 0.2, seed).1.iter().for_each(|&i| counts[i as usize] += 1);
        }
        assert!(counts.iter().all(|count| (12..=68).contains(count)), "{counts:?}");
        let chi2: f64 = counts.iter().map(|&c| (c as f64 - 40.0).powi(2) / 32.0).sum();
        assert!((100.0..300.0).contains(&chi2), "{chi2}");
    }

    #[test]
    fn without_known_classes_the_split_is_plain() {
        let told = dataset(&[0, 0, 0, 0, 1], 2);
        let untold = Arc::new(Fitting(told.train.clone(), Arc::default()));
        let untold = Dataset { train: untold, ..told.clone() };
        let (train, held) = parts(&untold, 0.4, 1);
        assert_eq!((train.len(), held.len()), (3, 2));
        // Stratified, the only sample of class 1 stays to be trained on; plain it is held out at times.
        assert!((0..50).all(|seed| parts(&told, 0.4, seed).0.contains(&4)));
        assert!((0..50).any(|seed| parts(&untold, 0.4, seed).1.contains(&4)));
    }

    /// A source that does not tell classes, and notes which samples it is fitted to.
    struct Fitting(Arc<dyn Source>, Arc<std::sync::Mutex<Vec<usize>>>);

    impl Source for Fitting {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn spec(&self) -> &SampleSpec {
            self.0.spec()
        }

        fn info(&self) -> &SourceInfo {
            self.0.info()
        }

        fn fit_on(&self, kept: &[usize]) -> Result<Option<Arc<dyn Source>>> {
            *self.1.lock().expect("not poisoned") = kept.to_vec();
            Ok(None)
        }

        fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
            self.0.read(index, scratch)
        }
    }

    #[test]
    fn what_is_fitted_is_fitted_to_the_training_part() {
        let plain = dataset(&[0; 10], 1);
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let train = Arc::new(Fitting(plain.train.clone(), seen.clone()));
        let (train, held) = parts(&Dataset { train, ..plain }, 0.3, 1);
        let fitted: Vec<u8> =
            seen.lock().expect("not poisoned").iter().map(|&row| row as u8).collect();
        assert_eq!(fitted, train);
        assert_eq!(held.len(), 3);
    }

    #[test]
    fn samples_tell_where_they_are_from() {
        let split = dataset(&[0; 10], 1).split(0.5, 1).expect("splits");
        let first = inputs(&*split.train)[0];
        assert_eq!(split.train.origin(0), Some(format!("sample {first} of numbers (train)")));
        assert_eq!(split.train.origin(5), None);
        assert!(split.train.read(5, &mut Vec::new()).is_err());
    }

    #[test]
    fn splits_that_cannot_be_are_refused() {
        let refusal = |labels: &[u32], fraction| {
            let refused = dataset(labels, 3).split(fraction, 1).map(|_| ());
            let error = refused.expect_err("must be refused");
            assert_eq!(error.kind().exit_code(), 2);
            error.to_string()
        };
        for fraction in [0.0, 1.0, 1.5, -0.1, f64::NAN, f64::INFINITY] {
            let message = refusal(&[0; 10], fraction);
            let found =
                format!("--val-split: found {fraction}, expected a share above 0 and below 1");
            assert!(message.contains(&found), "{message}");
        }
        assert!(refusal(&[0; 4], 0.1).contains("0.1 of 4 samples are 0, expected some in each"));
        assert!(refusal(&[0; 4], 0.9).contains("0.9 of 4 samples are 4"));
        let message = refusal(&[0, 1, 2, 2], 0.5);
        assert!(
            message
                .contains("2 of 4 samples in 3 classes leave a class without a sample to train on"),
            "{message}"
        );
    }
}
