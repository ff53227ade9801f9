//! How fast a run is once it is under way: its steady part, without the steps that fill the pipeline.

use std::time::{Duration, Instant};

use super::event::Event;
use super::trainer::Trainer;
use crate::error::{Error, Result};

/// A run's steady part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Samples a second.
    pub samples_per_s: f64,
    /// Seconds a step.
    pub step_s: f64,
    /// Steps that were timed.
    pub steps: u64,
}

impl Rate {
    /// Times at most `steps` steps of `trainer` after `warm_up` others, and fewer, but at least three, once `patience` is
    /// over. The run should have that many left.
    ///
    /// # Errors
    /// That of the run; or when it ends before three steps are timed.
    pub fn of(trainer: &Trainer, warm_up: u64, steps: u64, patience: Duration) -> Result<Self> {
        // Taken out as they come, so that a short queue does not hold the run up.
        let events = trainer.queue(64);
        let commands = trainer.commands();
        commands.steps(warm_up + steps);
        let mut timed: Option<Instant> = None;
        let (mut seen, mut samples) = (0, 0);
        for event in events {
            let Event::Step(report) = event? else { continue };
            seen += 1;
            let now = Instant::now();
            let Some(began) = timed else {
                timed = (seen >= warm_up.max(1)).then_some(now);
                continue;
            };
            samples += report.samples;
            let (count, spent) = (seen - warm_up.max(1), now - began);
            if count >= steps || (count >= 3 && spent > patience) {
                let step_s = spent.as_secs_f64() / count as f64;
                return Ok(Self {
                    samples_per_s: samples as f64 / spent.as_secs_f64(),
                    step_s,
                    steps: count,
                });
            }
        }
        let message = format!("ended after {seen} steps, expected {} at least", warm_up + 3);
        Err(Error::config("--steps", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::planted::{Plants, config, trainer};

    #[test]
    fn a_rate_is_that_of_the_slowest_stage() {
        let compute = Duration::from_millis(20);
        let plants = Plants { compute, ..Default::default() };
        let rate = || {
            let trainer = trainer(&plants, &config(1000)).expect("starts");
            Rate::of(&trainer, 3, 8, Duration::from_secs(60)).expect("runs")
        };
        // Where all cores are busy, news of the first step may come late, so that the others seem shorter; not each time.
        let least = 0.99 * compute.as_secs_f64();
        let rate = (0..5).map(|_| rate()).find(|rate| rate.step_s >= least);
        let rate = rate.expect("a step that is no shorter than its computing");
        assert_eq!(rate.steps, 8);
        assert!((rate.samples_per_s * rate.step_s - 16.0).abs() < 1e-9, "{rate:?}");
    }

    #[test]
    fn a_run_that_is_too_short_says_so() {
        let trainer = trainer(&Plants::default(), &config(4)).expect("starts");
        let error = Rate::of(&trainer, 3, 8, Duration::from_secs(60)).expect_err("too short");
        assert!(error.to_string().contains("--steps: ended after 4 steps"), "{error}");
    }
}
