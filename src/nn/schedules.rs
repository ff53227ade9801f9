//! Learning rate schedules: pure functions of the step, so a resumed run goes on where it was.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the learning rate changes over a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Always the base rate.
    // Without braces serde passes over whatever stands beside the type.
    Constant {},
    /// Times `gamma` every so many steps (`torch.optim.lr_scheduler.StepLR`).
    Step {
        /// Steps between two changes.
        every: u64,
        /// The factor of each change.
        #[serde(default = "tenth")]
        gamma: f64,
    },
    /// Half a cosine from the base rate down to `min` (Loshchilov and Hutter, 2017;
    /// `CosineAnnealingLR` over the whole run).
    Cosine {
        /// The rate at the end.
        #[serde(default)]
        min: f64,
    },
    /// Up to a peak and down again (Smith and Topin, 2018; `OneCycleLR` with cosine annealing).
    OneCycle {
        /// The peak as a multiple of the base rate.
        #[serde(default = "one")]
        peak: f64,
        /// Share of the run that goes up.
        #[serde(default = "three_tenths")]
        pct_start: f64,
        /// The first rate is the peak divided by this.
        #[serde(default = "twenty_five")]
        div: f64,
        /// The last rate is the first divided by this.
        #[serde(default = "ten_thousand")]
        final_div: f64,
    },
    /// A linear rise over the first steps, then another schedule over the rest of the run.
    Warmup {
        /// Steps of the rise: step `i` of them has (i + 1) / `steps` of what the other starts with.
        steps: u64,
        /// What follows.
        #[serde(default)]
        then: Box<Schedule>,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::Constant {}
    }
}

fn tenth() -> f64 {
    0.1
}

fn one() -> f64 {
    1.0
}

fn three_tenths() -> f64 {
    0.3
}

fn twenty_five() -> f64 {
    25.0
}

fn ten_thousand() -> f64 {
    1e4
}

impl Schedule {
    /// The schedules that have a name; `warmup` is put before another by [`Schedule::warmed_up`].
    pub const NAMES: [&str; 4] = ["constant", "step", "cosine", "one_cycle"];

    /// A schedule with its defaults, by name (also with `-` for `_`); `step` divides by 10 after each third
    /// of `total_steps`.
    ///
    /// # Errors
    /// For a name that is not one of [`NAMES`](Self::NAMES).
    pub fn by_name(name: &str, total_steps: u64) -> Result<Self> {
        match name.replace('-', "_").as_str() {
            "constant" => Ok(Schedule::Constant {}),
            "step" => Ok(Schedule::Step { every: total_steps.div_ceil(3).max(1), gamma: tenth() }),
            "cosine" => Ok(Schedule::Cosine { min: 0.0 }),
            "one_cycle" => Ok(Schedule::one_cycle()),
            _ => {
                let known = Self::NAMES.join(", ");
                Err(Error::config("schedule", format!("found {name:?}, expected one of {known}")))
            }
        }
    }

    /// One cycle with PyTorch's defaults, the base rate its peak.
    pub fn one_cycle() -> Self {
        let (pct_start, div, final_div) = (three_tenths(), twenty_five(), ten_thousand());
        Schedule::OneCycle { peak: 1.0, pct_start, div, final_div }
    }

    /// The same after a linear rise over `steps` steps.
    pub fn warmed_up(self, steps: u64) -> Self {
        if steps == 0 { self } else { Schedule::Warmup { steps, then: Box::new(self) } }
    }

    /// The learning rate of `step` (from 0) in a run of `total_steps`, for a base rate of `base`.
    /// Beyond the end it stays what it was at the end.
    pub fn lr(&self, base: f64, step: u64, total_steps: u64) -> f64 {
        match *self {
            Schedule::Constant {} => base,
            Schedule::Step { every, gamma } => base * gamma.powf((step / every.max(1)) as f64),
            Schedule::Cosine { min } => {
                let progress = step.min(total_steps) as f64 / total_steps.max(1) as f64;
                anneal(base, min, progress)
            }
            Schedule::OneCycle { peak, pct_start, div, final_div } => {
                let peak = base * peak;
                let first = peak / div;
                let (end, last) = (pct_start * total_steps as f64 - 1.0, total_steps as f64 - 1.0);
                let step = (step as f64).min(last.max(0.0));
                if step <= end && end > 0.0 {
                    anneal(first, peak, step / end)
                } else {
                    // A rise of at most one step is left out: the run then starts at its peak.
                    let end = end.max(0.0);
                    let progress = if last > end { (step - end) / (last - end) } else { 1.0 };
                    anneal(peak, first / final_div, progress)
                }
            }
            Schedule::Warmup { steps, ref then } if step < steps => {
                let start = then.lr(base, 0, total_steps.saturating_sub(steps));
                start * ((step + 1) as f64 / steps as f64)
            }
            Schedule::Warmup { steps, ref then } => {
                then.lr(base, step - steps, total_steps.saturating_sub(steps))
            }
        }
    }

    /// Checks that all settings are finite and in range.
    ///
    /// # Errors
    /// Naming the key, what was found and what is expected.
    pub fn validate(&self) -> Result<()> {
        let expect = |key: &str, value: f64, holds: bool, expected: &str| {
            if holds && value.is_finite() {
                return Ok(());
            }
            let message = format!("found {value}, expected {expected}");
            Err(Error::config(format!("schedule.{key}"), message))
        };
        match *self {
            Schedule::Constant {} => Ok(()),
            Schedule::Step { every, gamma } => {
                expect("every", every as f64, every > 0, "at least 1 step")?;
                expect("gamma", gamma, gamma > 0.0, "a number above 0")
            }
            Schedule::Cosine { min } => expect("min", min, min >= 0.0, "a number of at least 0"),
            Schedule::OneCycle { peak, pct_start, div, final_div } => {
                expect("peak", peak, peak > 0.0, "a number above 0")?;
                expect("pct_start", pct_start, (0.0..=1.0).contains(&pct_start), "0 to 1")?;
                expect("div", div, div > 0.0, "a number above 0")?;
                expect("final_div", final_div, final_div > 0.0, "a number above 0")
            }
            Schedule::Warmup { steps, ref then } => {
                expect("steps", steps as f64, steps > 0, "at least 1 step")?;
                then.validate()
            }
        }
    }
}

/// Half a cosine from `start` to `end`.
fn anneal(start: f64, end: f64, progress: f64) -> f64 {
    end + (start - end) / 2.0 * (1.0 + (PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks ten steps at a base rate of 0.1 against what PyTorch 2.x's scheduler of that name printed.
    fn follows(schedule: &Schedule, expected: [f64; 10]) {
        schedule.validate().expect("valid settings");
        for (step, expected) in expected.into_iter().enumerate() {
            let lr = schedule.lr(0.1, step as u64, 10);
            assert!(
                (lr - expected).abs() <= 1e-12 + 1e-12 * expected,
                "step {step}: {lr}, not {expected}"
            );
        }
    }

    #[test]
    fn constant_and_step() {
        follows(&Schedule::Constant {}, [0.1; 10]);
        follows(
            &Schedule::Step { every: 3, gamma: 0.5 },
            [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025, 0.0125],
        );
    }

    #[test]
    fn cosine() {
        follows(
            &Schedule::Cosine { min: 0.01 },
            [
                0.1,
                0.09779754323328192,
                0.09140576474687263,
                0.08145033635316129,
                0.06890576474687264,
                0.05500000000000001,
                0.04109423525312737,
                0.028549663646838717,
                0.01859423525312737,
                0.012202456766718092,
            ],
        );
    }

    #[test]
    fn one_cycle() {
        follows(
            &Schedule::OneCycle { peak: 3.0, pct_start: 0.3, div: 25.0, final_div: 1e4 },
            [
                0.01200000000000001,
                0.156,
                0.3,
                0.2851453896040421,
                0.24352369618492894,
                0.18337860658088678,
                0.11662259341911323,
                0.05647750381507109,
                0.014855810395957887,
                1.2e-06,
            ],
        );
        follows(
            &Schedule::OneCycle { peak: 1.0, pct_start: 0.25, div: 10.0, final_div: 100.0 },
            [
                0.009999999999999995,
                0.07749999999999999,
                0.0989084726566536,
                0.09046039886902862,
                0.07502500000000001,
                0.0552711967402193,
                0.03461460113097138,
                0.01662692621237505,
                0.004418404390752082,
                0.0001,
            ],
        );
    }

    #[test]
    fn warmup_rises_to_what_follows() {
        follows(
            &Schedule::Cosine { min: 0.0 }.warmed_up(4),
            [
                0.025,
                0.05,
                0.07500000000000001,
                0.1,
                0.1,
                0.09330127018922195,
                0.07500000000000001,
                0.05,
                0.025000000000000012,
                0.006698729810778065,
            ],
        );
        assert_eq!(Schedule::Constant {}.warmed_up(0), Schedule::Constant {});
    }

    #[test]
    fn runs_of_any_length_have_finite_rates() {
        for name in Schedule::NAMES {
            for total in [0, 1, 2, 3, 4, 10] {
                let schedule = Schedule::by_name(name, total).expect("a known name");
                for schedule in [schedule.clone(), schedule.clone().warmed_up(3)] {
                    for step in 0..total + 3 {
                        let lr = schedule.lr(0.1, step, total);
                        assert!(
                            (0.0..=0.1).contains(&lr),
                            "{schedule:?} of {total} at {step}: {lr}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn configs_are_read_and_checked() {
        let read = |text| toml::from_str::<Schedule>(text);
        assert_eq!(read("type = \"one_cycle\"").expect("defaults"), Schedule::one_cycle());
        let text = "type = \"warmup\"\nsteps = 5\nthen = { type = \"cosine\" }";
        assert_eq!(read(text).expect("nested"), Schedule::Cosine { min: 0.0 }.warmed_up(5));
        assert!(read("type = \"cosine\"\nmax = 1").is_err());
        assert!(Schedule::by_name("exponential", 1).is_err());
        let message = |schedule: Schedule| schedule.validate().expect_err("refused").to_string();
        assert!(message(Schedule::Step { every: 0, gamma: 0.1 }).contains("schedule.every"));
        assert!(message(Schedule::Cosine { min: f64::NAN }.warmed_up(2)).contains("schedule.min"));
        let one_cycle = Schedule::OneCycle { peak: 1.0, pct_start: 1.5, div: 25.0, final_div: 1e4 };
        assert!(message(one_cycle).contains("schedule.pct_start"));
    }
}
