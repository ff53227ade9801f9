//! What a run does, in order: which pass over which samples. A pure function of the configuration, so that
//! the prepare thread can run ahead across epochs and validation, and a resumed run goes on where it was.

use std::ops::Range;

use super::book::Progress;
use crate::graph::plan::Pass;
use crate::pipeline::{Split, Work};
use crate::sampler::Sampler;

/// An iterator over the work of a run.
#[derive(Clone, Debug)]
pub struct Agenda {
    train: Sampler,
    validation: Option<Sampler>,
    accumulate: usize,
    total_steps: u64,
    step: u64,
    micro_step: usize,
    /// The next batch of a validation under way.
    validating: Option<usize>,
}

impl Agenda {
    /// The work that is left after `progress`, up to `total_steps` optimizer steps, each over `accumulate`
    /// batches. A validation follows every epoch and the last step.
    pub fn new(
        train: Sampler,
        validation: Option<Sampler>,
        accumulate: usize,
        total_steps: u64,
        progress: &Progress,
    ) -> Self {
        let step = progress.step;
        let mut agenda = Self {
            train,
            validation,
            accumulate,
            total_steps,
            step,
            micro_step: 0,
            validating: None,
        };
        // A checkpoint at an epoch's end is taken before the validation of that epoch.
        if step > 0 && !progress.validated() && agenda.epoch_ends_at(step) {
            agenda.validating = agenda.validation.as_ref().map(|_| 0);
        }
        agenda
    }

    /// Optimizer steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// Optimizer steps in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.train.steps_per_epoch().div_ceil(self.accumulate) as u64
    }

    /// The work before the first step whose samples do not all come, as `reaches` says of the samples of a step. The
    /// beginning of a step that cannot be finished would be of no use, and leave its mark on running statistics.
    pub fn while_steps(mut self, reaches: impl Fn(&[usize]) -> bool) -> impl Iterator<Item = Work> {
        let next = move || {
            let begins = self.validating.is_none() && self.micro_step == 0;
            if begins && self.step < self.total_steps && !reaches(&self.step_indices()) {
                return None;
            }
            self.next()
        };
        std::iter::from_fn(next).fuse()
    }

    /// The samples of the next step.
    fn step_indices(&self) -> Vec<usize> {
        let (epoch, batches) = self.step_batches();
        batches.flat_map(|batch| self.train.indices(epoch, batch)).collect()
    }

    /// The epoch of the next step, and its batches in there.
    fn step_batches(&self) -> (u64, Range<usize>) {
        let epoch = self.step / self.steps_per_epoch();
        let first = (self.step % self.steps_per_epoch()) as usize * self.accumulate;
        (epoch, first..first + self.accumulate.min(self.train.steps_per_epoch() - first))
    }

    fn epoch_ends_at(&self, step: u64) -> bool {
        step.is_multiple_of(self.steps_per_epoch()) || step == self.total_steps
    }

    fn validation_batch(&mut self, batch: usize) -> Option<Work> {
        let sampler = self.validation.as_ref()?;
        let last = batch + 1 == sampler.steps_per_epoch();
        self.validating = (!last).then_some(batch + 1);
        Some(Work {
            pass: Pass::Eval,
            split: Split::Validation,
            epoch: (self.step - 1) / self.steps_per_epoch(),
            step: self.step,
            micro_step: 0,
            weight: 1.0,
            indices: sampler.indices(0, batch).collect(),
            last,
            bad: 0,
        })
    }

    fn train_batch(&mut self) -> Work {
        let (epoch, batches) = self.step_batches();
        let batch = batches.start + self.micro_step;
        let complete = batch + 1 == batches.end;
        let samples: usize = batches.map(|batch| self.train.indices(epoch, batch).len()).sum();
        let indices: Vec<usize> = self.train.indices(epoch, batch).collect();
        let work = Work {
            pass: if complete { Pass::Train } else { Pass::Accumulate },
            split: Split::Train,
            epoch,
            step: self.step,
            micro_step: self.micro_step as u32,
            weight: indices.len() as f32 / samples as f32,
            indices,
            last: complete && self.epoch_ends_at(self.step + 1),
            bad: 0,
        };
        self.micro_step = if complete { 0 } else { self.micro_step + 1 };
        self.step += u64::from(complete);
        if work.last && self.validation.is_some() {
            self.validating = Some(0);
        }
        work
    }
}

impl Iterator for Agenda {
    type Item = Work;

    fn next(&mut self) -> Option<Work> {
        if let Some(batch) = self.validating {
            return self.validation_batch(batch);
        }
        (self.step < self.total_steps).then(|| self.train_batch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agenda(accumulate: usize, total_steps: u64, step: u64) -> Agenda {
        let train = Sampler::new(10, 3, 1, true, false).unwrap();
        let validation = Sampler::new(4, 3, 1, false, false).unwrap();
        let progress = Progress { step, ..Default::default() };
        Agenda::new(train, Some(validation), accumulate, total_steps, &progress)
    }

    #[test]
    fn every_sample_comes_once_an_epoch_and_validation_follows() {
        let work: Vec<Work> = agenda(1, 8, 0).collect();
        let splits: String =
            work.iter().map(|w| if w.split == Split::Train { 't' } else { 'v' }).collect();
        assert_eq!(splits, "ttttvvttttvv");
        for epoch in 0..2 {
            let of = |split| {
                let mut all: Vec<usize> = work
                    .iter()
                    .filter(|w| w.epoch == epoch && w.split == split)
                    .flat_map(|w| w.indices.clone())
                    .collect();
                all.sort();
                all
            };
            assert_eq!(of(Split::Train), (0..10).collect::<Vec<_>>());
            assert_eq!(of(Split::Validation), (0..4).collect::<Vec<_>>());
        }
        let last: Vec<usize> = (0..work.len()).filter(|&i| work[i].last).collect();
        assert_eq!(last, [3, 5, 9, 11]);
    }

    #[test]
    fn resuming_at_any_step_gives_the_rest_of_the_same_work() {
        for accumulate in [1, 2, 3] {
            let all: Vec<Work> = agenda(accumulate, 7, 0).collect();
            for step in 1..=7 {
                let rest: Vec<Work> = agenda(accumulate, 7, step).collect();
                assert_eq!(rest, all[all.len() - rest.len()..], "step {step}");
                let steps = |work: &[Work]| work.iter().filter(|w| w.pass == Pass::Train).count();
                assert_eq!(steps(&rest), 7 - step as usize);
            }
        }
    }

    #[test]
    fn a_step_begins_only_if_all_of_its_samples_come() {
        let all: Vec<Work> = agenda(3, 7, 0).collect();
        assert_eq!(agenda(3, 7, 0).while_steps(|_| true).collect::<Vec<_>>(), all);
        // Ten samples by three: a step of nine and one of the one left, and then the next epoch.
        for (come, steps) in [(0, 0), (8, 0), (9, 1), (10, 2), (18, 2), (19, 3)] {
            let left = std::cell::Cell::new(come);
            let reaches = |indices: &[usize]| {
                let rest = left.get() as isize - indices.len() as isize;
                left.set(rest.max(0) as usize);
                rest >= 0
            };
            let part: Vec<Work> = agenda(3, 7, 0).while_steps(reaches).collect();
            assert_eq!(part, all[..part.len()]);
            let train: Vec<Pass> =
                part.iter().filter(|w| w.split == Split::Train).map(|w| w.pass).collect();
            let whole = train.iter().filter(|&&pass| pass == Pass::Train).count();
            assert_eq!((whole, train.last()), (steps, [None, Some(&Pass::Train)][steps.min(1)]));
        }
    }

    #[test]
    fn the_parts_of_an_accumulated_step_weigh_one_together() {
        let work: Vec<Work> = agenda(3, 2, 0).filter(|w| w.split == Split::Train).collect();
        let kinds: Vec<Pass> = work.iter().map(|w| w.pass).collect();
        // Four batches of 3, 3, 3 and 1 samples: a step of three, then a step of the one left.
        assert_eq!(kinds, [Pass::Accumulate, Pass::Accumulate, Pass::Train, Pass::Train]);
        let weights: Vec<f32> = work.iter().map(|w| w.weight).collect();
        assert!((weights[..3].iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(weights[3], 1.0);
    }
}
