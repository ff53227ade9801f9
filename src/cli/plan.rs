//! `inflight train --dry-run`: what would run, without running it.

use std::sync::Arc;

use inflight::Result;
use inflight::batch::{SampleSpec, SlotLayout};
use inflight::config::RunConfig;
use inflight::gpu;
use inflight::gpu::survey::{DeviceMemory, Survey};
use inflight::graph::cost::Cost;
use inflight::graph::plan::{ActivationBuffer, Pass, Program};
use inflight::nn::Module;
use inflight::nn::describe::describe;
use inflight::source::{Dataset, ENDLESS};
use inflight::train::event::Input;
use inflight::transform::{Transform, TransformConfig, deferrable};
use serde::Serialize;

use super::print as out;

#[derive(Serialize)]
struct Plan {
    event: &'static str,
    dataset: String,
    /// Absent for a stream.
    train_samples: Option<usize>,
    val_samples: usize,
    test_samples: usize,
    model_parameters: usize,
    batch_size: usize,
    steps: u64,
    steps_per_epoch: u64,
    slots: usize,
    /// What will prepare the batches.
    input: Input,
    slot_bytes: usize,
    ring_bytes: usize,
    arena_bytes: usize,
    activation_bytes: usize,
    /// All that the device will hold, to the byte; absent on the twins.
    device_bytes: Option<u64>,
    /// Bytes that a training step moves at least.
    step_bytes: u64,
    /// Dispatches of a training step, and how many of them wait for all before; absent on the twins.
    dispatches: Option<usize>,
    barriers: Option<usize>,
    device: String,
    #[serde(flatten)]
    transforms: TransformsBySide,
}

/// Names of the transforms by where they run, in order.
#[derive(Default, Serialize)]
pub struct TransformsBySide {
    transforms_on_workers: Vec<String>,
    transforms_on_device: Vec<String>,
}

impl TransformsBySide {
    /// Those of a run by `config` whose program is laid out as `slot`.
    pub fn new(config: &RunConfig, spec: &SampleSpec, slot: &SlotLayout) -> Self {
        let all: Vec<_> = config.transforms.iter().filter_map(TransformConfig::build).collect();
        let deferred = if slot.framing_bytes > 0 { deferrable(&all, spec) } else { 0 };
        let names = |part: &[Box<dyn Transform>]| part.iter().map(|t| t.name().into()).collect();
        let (workers, device) = all.split_at(all.len() - deferred);
        Self { transforms_on_workers: names(workers), transforms_on_device: names(device) }
    }

    /// `transforms: random_resized_crop on the workers · horizontal_flip on the device`; none without transforms.
    pub fn line(&self) -> Option<String> {
        let sides =
            [(&self.transforms_on_workers, "workers"), (&self.transforms_on_device, "device")];
        let parts: Vec<String> = sides
            .into_iter()
            .filter(|(names, _)| !names.is_empty())
            .map(|(names, side)| format!("{} on the {side}", names.join(", ")))
            .collect();
        (!parts.is_empty()).then(|| format!("transforms: {}", parts.join(" · ")))
    }
}

/// Prints the plan of a run.
///
/// # Errors
/// When the ring would be too large or the device is not there.
pub fn print(
    config: &RunConfig,
    dataset: &Dataset,
    model: &dyn Module,
    program: Program,
    steps_per_epoch: u64,
    json: bool,
) -> Result<()> {
    let slot_bytes = program.slot.slot_bytes;
    let slots = config.ring(slot_bytes)?;
    let description = describe(model, dataset.train.spec(), config.batch_size)?;
    let device = context(&config.device)?;
    let program = Arc::new(program);
    let survey = device.as_ref().map(|device| Survey::new(&program, device, slots));
    let counts = survey.as_ref().and_then(|survey| survey.passes.get(&Pass::Train));
    let plan = Plan {
        event: "plan",
        dataset: dataset.name.clone(),
        train_samples: Some(dataset.train.len()).filter(|&len| len != ENDLESS),
        val_samples: dataset.validation.as_ref().map_or(0, |held_out| held_out.len()),
        test_samples: dataset.test.as_ref().map_or(0, |test| test.len()),
        model_parameters: description.parameter_count,
        batch_size: config.batch_size,
        steps: config.total_steps(steps_per_epoch),
        steps_per_epoch,
        slots,
        input: Input::planned(config, slots, dataset.train.waits()),
        slot_bytes,
        ring_bytes: slots * slot_bytes,
        arena_bytes: 4 * program.arenas.values().sum::<usize>(),
        activation_bytes: program.activations.iter().map(ActivationBuffer::bytes).sum(),
        device_bytes: survey.as_ref().map(|survey| survey.memory.total()),
        step_bytes: Cost::of_plan(&program.plans[&Pass::Train]).bytes,
        dispatches: counts.map(|counts| counts.dispatches),
        barriers: counts.map(|counts| counts.barriers),
        device: describe_device(device.as_deref()),
        transforms: TransformsBySide::new(config, dataset.train.spec(), &program.slot),
    };
    let fits = || match (&survey, &device) {
        (Some(survey), Some(device)) => survey.check_memory(&program, device),
        _ => Ok(()),
    };
    if json {
        out::json(&plan)?;
        return fits();
    }
    out::data(dataset_line(dataset));
    plan.transforms.line().into_iter().for_each(out::data);
    out::data(format!(
        "model: {} parameters in {} tensors",
        out::count(plan.model_parameters),
        description.tensors.len()
    ));
    out::data(format!(
        "steps: {}{}, {} samples each",
        out::count(plan.steps),
        match plan.train_samples {
            None => String::new(),
            Some(_) => format!(", {} an epoch", out::count(plan.steps_per_epoch)),
        },
        out::count(config.batch_size * config.accumulate)
    ));
    let bytes = |bytes: usize| out::bytes(bytes as u64);
    out::data(format!(
        "memory: {} in {} slots of {} · parameters, gradients and moments {} · activations {}",
        bytes(plan.ring_bytes),
        slots,
        bytes(slot_bytes),
        bytes(plan.arena_bytes),
        bytes(plan.activation_bytes)
    ));
    out::data(format!("input: {} · budget {}", plan.input, bytes(config.memory_budget)));
    let mut step = format!("a step: moves at least {}", out::bytes(plan.step_bytes));
    if let Some(counts) = counts {
        let (dispatches, barriers) = (out::count(counts.dispatches), out::count(counts.barriers));
        step.push_str(&format!(" · {dispatches} dispatches, {barriers} barriers"));
    }
    out::data(step);
    if let Some(survey) = &survey {
        out::data(device_memory(&survey.memory));
    }
    out::data(format!("device: {}", plan.device));
    fits()
}

/// What the device will hold, to the byte.
fn device_memory(memory: &DeviceMemory) -> String {
    format!(
        "device memory: {} bytes = parameters, gradients and moments {} + activations {} + scratch {} + batches {} \
         + results {} + a checkpoint's copy {}",
        out::count(memory.total()),
        out::count(memory.arenas),
        out::count(memory.activations),
        out::count(memory.scratch),
        out::count(memory.batches),
        out::count(memory.readback),
        out::count(memory.snapshot),
    )
}

/// `fashion-mnist: 60,000 training and 10,000 test samples, 1 × 28 × 28 u8, 10 classes`.
pub fn dataset_line(dataset: &Dataset) -> String {
    let spec = dataset.train.spec();
    if dataset.train.len() == ENDLESS {
        return format!(
            "{}: a stream of {} {}{}",
            dataset.name,
            out::shape(&spec.input_shape),
            out::dtype(spec.input_dtype),
            spec.classes().map_or(String::new(), classes_line),
        );
    }
    let held_out = [(&dataset.validation, "validation"), (&dataset.test, "test")];
    let mut parts = vec![(&dataset.train, "training")];
    parts.extend(held_out.iter().filter_map(|(part, name)| Some((part.as_ref()?, *name))));
    let parts: Vec<String> =
        parts.iter().map(|(part, name)| format!("{} {name}", out::count(part.len()))).collect();
    format!(
        "{}: {} samples, {} {}{}",
        dataset.name,
        parts.join(" and "),
        out::shape(&spec.input_shape),
        out::dtype(spec.input_dtype),
        spec.classes().map_or(String::new(), classes_line),
    )
}

fn classes_line(classes: usize) -> String {
    match classes {
        1 => ", one class: there is nothing to tell apart".into(),
        _ => format!(", {classes} classes"),
    }
}

/// The GPU that a selector means; none means the twins.
fn context(selector: &str) -> Result<Option<Arc<gpu::Context>>> {
    if selector == "cpu" { Ok(None) } else { gpu::Context::open(selector) }
}

fn describe_device(context: Option<&gpu::Context>) -> String {
    context.map_or("CPU twins".into(), |gpu| format!("{} ({})", gpu.name(), gpu.kind()))
}

/// The device that a selector means.
pub fn device_name(selector: &str) -> Result<String> {
    Ok(describe_device(context(selector)?.as_deref()))
}
