//! Evaluation and prediction with weights that are already there: the same pipeline, forward only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::compile::{Blueprint, compile};
use super::trainer::gone;
use super::units::{TextMeasures, TextUnits};
use super::weights::Weights;
use crate::batch::{SampleSpec, StepHeader};
use crate::device;
use crate::error::Result;
use crate::executor::{DeviceInfo, Done, Executor, Wants};
use crate::graph::plan::{Pass, Program};
use crate::nn::Module;
use crate::nn::losses::Loss;
use crate::pipeline::{DeviceEnds, Pipeline, Preparation, Split, Work};
use crate::quarantine::{Budget, OnBadSample, Quarantine};
use crate::sampler::Sampler;
use crate::source::supply::Supply;
use crate::source::{ENDLESS, Source, SourceInfo, no_stream};
use crate::transform::{self, TransformConfig};
use crate::tuner::SLOTS_FIRST;

/// How to evaluate.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalOptions {
    /// Device selector, see [`device::open`].
    pub device: String,
    /// Samples a batch.
    pub batch_size: usize,
    /// Preparing workers.
    pub workers: usize,
    /// Slots in the ring.
    pub slots: usize,
    /// Whether the outputs are kept and returned.
    pub outputs: bool,
    /// What is done to images, in order: of a run, its `eval_transforms`.
    pub transforms: Vec<TransformConfig>,
    /// The seed of what they draw, if they draw anything: of a run, its seed.
    pub seed: u64,
    /// Whether samples that cannot be used are an error or left out. With outputs they always are an error.
    pub on_bad_sample: OnBadSample,
    /// How many may be left out.
    pub bad_sample_budget: Budget,
}

impl Default for EvalOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            device: "auto".into(),
            batch_size: 128,
            workers,
            slots: SLOTS_FIRST,
            outputs: false,
            transforms: Vec::new(),
            seed: 0,
            on_bad_sample: OnBadSample::default(),
            bad_sample_budget: Budget::default(),
        }
    }
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Samples evaluated.
    pub samples: u64,
    /// Bad samples that were left out.
    pub left_out: u64,
    /// Mean loss.
    pub loss: f64,
    /// Share of correct predictions, for classifiers.
    pub accuracy: Option<f64>,
    /// Of text, the same in the field's units.
    #[serde(flatten)]
    pub text: TextMeasures,
    /// Seconds from the first batch to the last result.
    pub eval_s: f64,
    /// `samples / eval_s`.
    pub samples_per_s: f64,
    /// What it ran on.
    pub device: DeviceInfo,
    /// The model's output for each sample in order, where asked for: `[samples, width]`.
    #[serde(skip)]
    pub outputs: Vec<f32>,
    /// Length of one output.
    #[serde(skip)]
    pub output_width: usize,
}

/// Evaluates `model` with `weights` on all of `source`; inputs are normalised as `trained_on` says.
///
/// # Errors
/// When weights, model and data do not fit together, or data or device fail.
pub fn evaluate(
    model: &dyn Module,
    weights: &Weights,
    source: Arc<dyn Source>,
    trained_on: &SourceInfo,
    options: &EvalOptions,
) -> Result<Evaluation> {
    if source.len() == ENDLESS {
        return Err(no_stream(&*source, "to evaluate on"));
    }
    let spec = source.spec().clone();
    options.transforms.iter().try_for_each(TransformConfig::validate)?;
    transform::check(&options.transforms, &*source)?;
    let batch_size = options.batch_size.min(source.len()).max(1);
    let program = Arc::new(eval_program(model, &spec, trained_on, batch_size)?);
    let mut executor = device::open(&options.device, program.clone(), options.slots)?;
    for (arena, variable, values) in weights.place(&program)? {
        executor.load(arena, variable.offset, &values)?;
    }
    let device = executor.device();
    let work = agenda(&source, batch_size)?;
    let passes = work.len();
    let on = if options.outputs { OnBadSample::Error } else { options.on_bad_sample };
    let (budget, held_out) = (options.bad_sample_budget, Some(source.clone()));
    let quarantine = Quarantine::new(on, budget, source.clone(), held_out);
    let preparation = Preparation {
        train: source.clone(),
        validation: Some(source.clone()),
        transforms: Vec::new(),
        held_out: options.transforms.iter().filter_map(TransformConfig::build).collect(),
        layout: program.slot.clone(),
        seed: options.seed,
        workers: options.workers,
        find: Default::default(),
        quarantine: Arc::new(quarantine),
        supply: Supply::default(),
    };
    let began = Instant::now();
    let slots = executor.take_slots()?;
    // Bound: the one result of the run.
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let wants = Wants { output: options.outputs, ..Wants::default() };
    let pipeline = Pipeline::start(slots, work.into_iter(), preparation, move |ends| {
        let _ = sender.send(run(&mut *executor, &ends, passes, wants));
    })?;
    let totals = receiver.recv().map_err(|_| gone())??;
    drop(pipeline);
    let eval_s = began.elapsed().as_secs_f64();
    let samples = totals.count;
    let (loss, samples_per_s) = (totals.loss / samples, samples / eval_s);
    let text = TextUnits::of(&spec);
    Ok(Evaluation {
        samples: samples as u64,
        left_out: totals.left_out,
        loss,
        text: text.map(|text| text.measures(Some(loss), samples_per_s)).unwrap_or_default(),
        accuracy: spec.classes().map(|_| totals.correct / samples),
        eval_s,
        samples_per_s,
        device,
        output_width: program.output_width(),
        outputs: totals.outputs,
    })
}

/// A program that only evaluates.
///
/// # Errors
/// When the model does not fit the data.
pub fn eval_program(
    model: &dyn Module,
    spec: &SampleSpec,
    trained_on: &SourceInfo,
    batch_size: usize,
) -> Result<Program> {
    compile(&Blueprint {
        model,
        spec,
        batch_size,
        mean: &trained_on.mean,
        std: &trained_on.std,
        loss: Loss::for_target(spec),
        training: None,
    })
}

fn agenda(source: &Arc<dyn Source>, batch_size: usize) -> Result<Vec<Work>> {
    let sampler = Sampler::new(source.len(), batch_size, 0, false, false)?;
    let batches = sampler.steps_per_epoch();
    let work = |batch| Work {
        pass: Pass::Eval,
        split: Split::Validation,
        epoch: 0,
        step: 0,
        micro_step: 0,
        weight: 1.0,
        indices: sampler.indices(0, batch).collect(),
        last: batch + 1 == batches,
        bad: 0,
    };
    Ok((0..batches).map(work).collect())
}

#[derive(Default)]
struct Totals {
    loss: f64,
    correct: f64,
    count: f64,
    left_out: u64,
    outputs: Vec<f32>,
}

impl Totals {
    fn add(&mut self, done: Done, ends: &DeviceEnds) {
        self.loss += f64::from(done.metrics[0]);
        self.correct += f64::from(done.metrics[1]);
        self.count += f64::from(done.metrics[2]);
        self.outputs.extend(done.output.unwrap_or_default());
        // The prepare thread may already have handed out its last batch.
        let _ = ends.empty.send(done.slot);
    }
}

/// Submits batches as they come and adds up what comes back.
fn run(
    executor: &mut dyn Executor,
    ends: &DeviceEnds,
    passes: usize,
    wants: Wants,
) -> Result<Totals> {
    let mut totals = Totals::default();
    for _ in 0..passes {
        let filled = ends.full.recv().map_err(|_| gone())??;
        totals.left_out += filled.work.bad as u64;
        let mut slot = filled.slot;
        let count = filled.work.indices.len() as u32;
        slot.write_header(&StepHeader { count, ..Default::default() });
        executor.submit(Pass::Eval, slot, wants)?;
        while let Some(done) = executor.collect(Duration::ZERO)? {
            totals.add(done, ends);
        }
        // With the whole ring in flight no batch can come: wait for the oldest.
        while ends.full.is_empty() && executor.in_flight() > 0 {
            if let Some(done) = executor.collect(Duration::from_millis(1))? {
                totals.add(done, ends);
            }
        }
    }
    while executor.in_flight() > 0 {
        if let Some(done) = executor.collect(Duration::from_millis(10))? {
            totals.add(done, ends);
        }
    }
    Ok(totals)
}
