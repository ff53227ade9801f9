//! The benchmark suite: each score beside the ceiling of the device it was reached on, both measured in the
//! same run. What is attainable follows from two ceilings, a streaming copy and multiply-adds in registers,
//! and from what an operation must compute and move (the roofline; Williams, Waterman and Patterson, 2009).
//!
//! [`kernels`] times single operations, [`train`] whole steps, [`pipeline`] the preparation of batches.

pub mod compare;
pub mod kernels;
pub mod page;
pub mod pipeline;
pub mod results;
pub mod stalls;
pub mod stats;
pub mod suite;
pub mod train;

mod bed;
mod ceilings;
mod conditions;
mod data;
mod loader;
mod ring;
mod text;
mod twin;

pub use bed::Bed;
pub use ceilings::Ceilings;
pub use twin::Twin;

use std::sync::Arc;

use serde::Serialize;

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::Result;
use crate::executor::Tune;
use crate::gpu::stopwatch::{Effort, Lap};
use crate::graph::cost::Cost;
use crate::graph::plan::Program;
use crate::nn::language::LanguageConfig;
use crate::source::{Source, Synthetic};
use crate::{RunConfig, Trainer};
use text::RandomText;

/// What to measure, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Fewer repetitions and smaller squares: minutes become seconds.
    pub quick: bool,
    /// Names of models, see [`models::by_name`](crate::nn::models::by_name).
    pub models: Vec<String>,
    /// Samples a batch.
    pub batch_size: usize,
    /// Precision of the models, as [`RunConfig::precision`] has it.
    pub precision: String,
    /// How much to tune before measuring.
    pub tune: Tune,
}

impl Options {
    /// Checks that every model can be built, before anything is measured.
    ///
    /// # Errors
    /// When a model is not known, or a setting is out of range.
    pub fn validate(&self) -> Result<()> {
        self.models.iter().try_for_each(|model| program(model, self).map(drop))
    }

    fn effort(&self) -> Effort {
        match self.quick {
            true => Effort { passes: 7, seconds: 0.3 },
            false => Effort { passes: 25, seconds: 2.0 },
        }
    }
}

/// A measured time with the floor under it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The time in seconds.
    #[serde(flatten)]
    pub lap: Lap,
    /// What is computed and moved.
    #[serde(flatten)]
    pub cost: Cost,
    /// Operations or bytes a second, whichever bounds it on this device.
    pub achieved: f64,
    /// As many as the device can do at best.
    pub ceiling: f64,
    /// `flop/s` or `byte/s`.
    pub unit: &'static str,
    /// `achieved` ÷ `ceiling`. Above 1 where data comes from a cache instead of from memory.
    pub share: f64,
}

impl Score {
    /// The score of something that costs `cost` and took `lap`.
    pub fn new(cost: Cost, lap: Lap, flops_per_s: f64, bytes_per_s: f64) -> Self {
        let computes = cost.flops as f64 / flops_per_s >= cost.bytes as f64 / bytes_per_s;
        let (amount, ceiling, unit) = match computes {
            true => (cost.flops, flops_per_s, "flop/s"),
            false => (cost.bytes, bytes_per_s, "byte/s"),
        };
        let achieved = amount as f64 / lap.median_s;
        Self { lap, cost, achieved, ceiling, unit, share: achieved / ceiling }
    }
}

/// Samples as a model is usually trained on: those of Fashion-MNIST for the small ones, of CIFAR-10 for others; texts of 64
/// bytes for the smallest language models, of 256 for larger ones, and of 1,024 of GPT-2's tokens for its own size.
///
/// # Errors
/// None for these shapes.
fn samples(model: &str) -> Result<Arc<dyn Source>> {
    if LanguageConfig::by_name(model).is_some() {
        let [context, vocabulary] = match model {
            "gpt2" => [1024, 50_257],
            name if name.ends_with("nano") => [64, 256],
            _ => [256, 256],
        };
        return Ok(Arc::new(RandomText::new(256, context, vocabulary)));
    }
    let input_shape = match model {
        "mlp" | "cnn" => vec![1, 28, 28],
        _ => vec![3, 32, 32],
    };
    let target = TargetSpec::Class { classes: 10 };
    let spec = SampleSpec { input_shape, input_dtype: DType::U8, target };
    Ok(Arc::new(Synthetic::new(1024, spec, 1)?))
}

/// The program that trains a model, with AdamW.
///
/// # Errors
/// When the model is not known, or a setting is out of range.
fn program(model: &str, options: &Options) -> Result<Program> {
    let samples = samples(model)?;
    let config = RunConfig {
        model: model.into(),
        batch_size: options.batch_size,
        precision: options.precision.clone(),
        ..Default::default()
    };
    let built = config.model.build(samples.spec())?;
    Trainer::builder(built, samples).config(config).program()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_samples_that_it_can_be_measured_with() {
        let options = Options {
            quick: true,
            models: Vec::new(),
            batch_size: 1,
            precision: "f32".into(),
            tune: Tune::Off,
        };
        for model in crate::nn::models::NAMES {
            let program = program(model, &options).unwrap_or_else(|e| panic!("{model}: {e}"));
            let mut scratch = Vec::new();
            let samples = samples(model).expect("samples");
            let sample = samples.read(samples.len() - 1, &mut scratch).expect("the last one");
            assert_eq!(sample.input.len(), program.spec.input_bytes(), "{model}");
        }
    }

    #[test]
    fn a_score_is_held_against_what_bounds_it() {
        let lap = Lap { median_s: 2.0, low_s: 1.0, high_s: 3.0 };
        let cost = Cost { flops: 1000, bytes: 10 };
        let found = Score::new(cost, lap, 1000.0, 100.0);
        assert_eq!((found.achieved, found.ceiling, found.unit), (500.0, 1000.0, "flop/s"));
        assert_eq!(found.share, 0.5);
        let found = Score::new(cost, lap, 1e6, 10.0);
        assert_eq!((found.achieved, found.ceiling, found.unit), (5.0, 10.0, "byte/s"));
        assert_eq!(found.share, 0.5);
    }
}
