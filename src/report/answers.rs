//! What a classifier answered in a validation: which class it took for which, and where it was most surely wrong.
//! Kept as `answers.json` in the run folder.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The file in the run folder.
pub const ANSWERS: &str = "answers.json";

/// Mistakes that are kept.
pub const WORST_MAX: usize = 24;

/// Classes beyond which nothing is kept: more than any data set of pictures has, and few enough to count.
pub const CLASSES_MAX: usize = 1 << 16;

/// The answers to all samples of one validation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// The epoch after which it was, from 0.
    pub epoch: u64,
    /// Steps applied before it.
    pub step: u64,
    /// Number of classes.
    pub classes: usize,
    /// Samples answered.
    pub samples: u64,
    /// Label, answer, and how often; by label, then by answer, without zeros.
    pub counts: Vec<(u32, u32, u64)>,
    /// The mistakes with the highest losses, the worst first.
    pub worst: Vec<Mistake>,
}

/// A sample that was taken for another class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mistake {
    /// Its number in the part held out.
    pub index: usize,
    /// Where it is from, if its source says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Its class.
    pub label: u32,
    /// What it was taken for.
    pub answer: u32,
    /// How probable that was to the model.
    pub probability: f64,
    /// Cross-entropy.
    pub loss: f64,
}

/// Counts the answers of a validation under way.
#[derive(Debug, Default)]
pub struct Counting {
    counts: BTreeMap<(u32, u32), u64>,
    worst: Vec<Mistake>,
    samples: u64,
}

impl Counting {
    /// Enters a batch: `logits` are `[samples, classes]`, and there may be rows of padding after the samples, whose
    /// numbers are `indices`. A sample whose class `class` does not know, or whose logits are not finite, is left out.
    pub fn add(
        &mut self,
        logits: &[f32],
        classes: usize,
        indices: &[usize],
        class: impl Fn(usize) -> Option<u32>,
    ) {
        for (row, &index) in logits.chunks_exact(classes.max(1)).zip(indices) {
            let Some(label) = class(index).filter(|&label| (label as usize) < row.len()) else {
                continue;
            };
            let Some((answer, top)) = highest(row) else { continue };
            self.samples += 1;
            *self.counts.entry((label, answer)).or_default() += 1;
            if answer != label {
                self.note(index, row, label, answer, top);
            }
        }
    }

    fn note(&mut self, index: usize, row: &[f32], label: u32, answer: u32, top: f32) {
        let margin = f64::from(top - row[label as usize]);
        // The loss is the margin and at most the logarithm of the number of classes more; most mistakes end here.
        let full = self.worst.len() == WORST_MAX;
        let least = self.worst.last().filter(|_| full).map_or(f64::NEG_INFINITY, |m| m.loss);
        if margin + (row.len() as f64).ln() <= least {
            return;
        }
        let sum: f64 = row.iter().map(|&x| f64::from(x - top).exp()).sum();
        let loss = margin + sum.ln();
        if loss <= least {
            return;
        }
        let mistake = Mistake { index, origin: None, label, answer, probability: 1.0 / sum, loss };
        let at = self.worst.partition_point(|other| other.loss >= loss);
        self.worst.insert(at, mistake);
        self.worst.truncate(WORST_MAX);
    }

    /// The answers of the validation that has ended; none where no sample could be counted.
    pub fn finish(self, epoch: u64, step: u64, classes: usize) -> Option<Answers> {
        let counts = self.counts.into_iter().map(|((label, answer), n)| (label, answer, n));
        (self.samples > 0).then(|| Answers {
            epoch,
            step,
            classes,
            samples: self.samples,
            counts: counts.collect(),
            worst: self.worst,
        })
    }
}

/// The first of the highest numbers, and where it is; none where one is not finite.
fn highest(row: &[f32]) -> Option<(u32, f32)> {
    let mut best = (0, f32::NEG_INFINITY);
    for (at, &x) in (0..).zip(row) {
        if !x.is_finite() {
            return None;
        }
        if x > best.1 {
            best = (at, x);
        }
    }
    Some(best).filter(|_| !row.is_empty())
}

impl Answers {
    /// Share of right answers.
    pub fn accuracy(&self) -> f64 {
        let right = self.counts.iter().filter(|(label, answer, _)| label == answer);
        right.map(|(.., n)| *n as f64).sum::<f64>() / (self.samples as f64).max(1.0)
    }

    /// Whether the numbers fit together; a file may hold any.
    pub fn is_sound(&self) -> bool {
        let fits = |class: u32| (class as usize) < self.classes;
        let sum = self.counts.iter().try_fold(0u64, |sum, (.., n)| sum.checked_add(*n));
        self.classes <= CLASSES_MAX
            && sum == Some(self.samples)
            && self.counts.iter().all(|&(label, answer, _)| fits(label) && fits(answer))
            && self.worst.len() <= WORST_MAX
            && self.worst.iter().all(|m| fits(m.label) && fits(m.answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_taken_for_what() {
        let mut counting = Counting::default();
        // Sample 13 has no class, sample 14 no finite logits, and the last row is padding.
        let nan = f32::NAN;
        let logits = [2., 1., 0., 0., 5., 1., 0., 3., 0., 1., 1., 1., 0., nan, 0., 9., 9., 9.];
        let class = |index: usize| [Some(0), Some(0), Some(1), None, Some(1)][index - 10];
        counting.add(&logits, 3, &[10, 11, 12, 13, 14], class);
        let answers = counting.finish(2, 30, 3).expect("samples were counted");
        assert_eq!(answers.counts, [(0, 0, 1), (0, 1, 1), (1, 1, 1)]);
        assert_eq!((answers.samples, answers.epoch, answers.step), (3, 2, 30));
        assert!((answers.accuracy() - 2.0 / 3.0).abs() < 1e-12);
        assert!(answers.is_sound());
        let [worst] = &answers.worst[..] else { panic!("{:?}", answers.worst) };
        assert_eq!((worst.index, worst.label, worst.answer), (11, 0, 1));
        let sum = (-5f64).exp() + 1.0 + (-4f64).exp();
        assert!((worst.probability - 1.0 / sum).abs() < 1e-6, "{worst:?}");
        assert!((worst.loss - (5.0 + sum.ln())).abs() < 1e-6, "{worst:?}");
        assert_eq!(Counting::default().finish(0, 0, 3), None);
    }

    #[test]
    fn the_worst_mistakes_stay_in_order() {
        let mut counting = Counting::default();
        let margins: Vec<f32> = (0..100).map(|i| ((i * 37) % 101) as f32 / 10.0 + 0.1).collect();
        for (index, &margin) in margins.iter().enumerate() {
            counting.add(&[0.0, margin], 2, &[index], |_| Some(0));
        }
        let answers = counting.finish(0, 1, 2).expect("samples were counted");
        let mut expected: Vec<usize> = (0..100).collect();
        expected.sort_by(|&a, &b| margins[b].total_cmp(&margins[a]));
        let found: Vec<usize> = answers.worst.iter().map(|m| m.index).collect();
        assert_eq!(found, expected[..WORST_MAX]);
    }

    #[test]
    fn numbers_that_do_not_fit_are_seen() {
        let sound =
            Answers { classes: 2, samples: 3, counts: vec![(0, 1, 3)], ..Default::default() };
        assert!(sound.is_sound());
        for unsound in [
            Answers { samples: 4, ..sound.clone() },
            Answers { classes: 1, ..sound.clone() },
            Answers { counts: vec![(0, 1, u64::MAX), (0, 0, 4)], ..sound.clone() },
        ] {
            assert!(!unsound.is_sound(), "{unsound:?}");
        }
    }
}
