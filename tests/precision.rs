//! Mixed precision: training in 16 bits follows training in 32, the loss scale finds its place, and plans
//! take about half the memory and traffic.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{config, devices, model, rows};
use inflight::batch::{DType, SampleSpec, Slot, StepHeader, TargetSpec};
use inflight::executor::{Done, Executor, Wants};
use inflight::graph::op::{LOSS_SCALE_LOG2, LOSS_SCALE_LOG2_MAX};
use inflight::graph::plan::{ActivationBuffer, Pass, Program};
use inflight::graph::{Arena, Role};
use inflight::nn::init::initial_values;
use inflight::nn::layers::Layer;
use inflight::nn::models::by_name;
use inflight::nn::optimizers::OptimizerConfig;
use inflight::nn::sequential::Sequential;
use inflight::source::{self, OpenOptions, Sample, Source, SourceInfo, Target};
use inflight::testing::assert_close;
use inflight::train::event::{Event, Summary};
use inflight::{Result, RunConfig, Trainer, cpu};

fn fashion() -> Arc<dyn Source> {
    let offline = OpenOptions { offline: true, ..Default::default() };
    source::open("fashion-mnist-10k", &offline).expect("the data set is in-tree").train
}

fn half(config: RunConfig) -> RunConfig {
    RunConfig { precision: "f16".into(), ..config }
}

/// The loss of each step, and the summary.
fn train(trainer: Trainer) -> (Vec<f64>, Summary) {
    let events = trainer.queue(1000);
    pollster::block_on(trainer.fit()).expect("the run succeeds");
    let (mut losses, mut summary) = (Vec::new(), None);
    for event in events {
        match event.expect("no failure") {
            Event::Step(step) => losses.push(step.loss),
            Event::Done(done) => summary = Some(*done),
            _ => {}
        }
    }
    (losses, summary.expect("the run ended with a summary"))
}

/// Trains in both precisions and expects the same losses, the mean over some steps within `tolerance`.
fn follow(name: &str, config: RunConfig, tolerance: f64) {
    let (data, device) = (fashion(), config.device.clone());
    let losses = |config: RunConfig| {
        let model = by_name(name, data.spec()).expect("the model fits");
        train(Trainer::builder(model, data.clone()).config(config).start().expect("starts"))
    };
    let ((full, _), (halved, summary)) = (losses(config.clone()), losses(half(config)));
    assert_eq!(summary.loss_scale, Some(65536.0));
    assert_eq!(summary.skipped, 0);
    let apart = full.iter().zip(&halved).map(|(a, b)| (a - b).abs() / a).fold(0.0, f64::max);
    eprintln!(
        "{device}: {name}: at most {apart:.1e} apart, loss {:?} to {:?}",
        full[0],
        full.last()
    );
    assert_ne!(full, halved, "something must have been rounded");
    assert_close(&halved, &full, 0.0, tolerance);
    assert!(full.last() < full.first().map(|first| 0.7 * first).as_ref(), "the model learns");
}

/// By momentum: the first steps of Adam follow the sign of gradients, however small, and so any rounding.
fn fashion_config(device: &str, steps: u64) -> RunConfig {
    let optimizer = OptimizerConfig::sgd();
    RunConfig { batch_size: 32, steps: Some(steps), lr: Some(0.02), optimizer, ..config(device) }
}

#[test]
fn mlp_learns_as_in_32_bits() {
    for device in devices() {
        follow("mlp", fashion_config(device, 40), 2e-2);
    }
}

#[test]
fn cnn_learns_as_in_32_bits() {
    for device in devices() {
        follow("cnn", RunConfig { lr: Some(0.01), ..fashion_config(device, 40) }, 2e-2);
    }
}

#[test]
fn clipping_and_accumulation_see_the_gradients_without_the_scale() {
    let base = fashion_config("cpu", 20);
    follow("mlp", RunConfig { clip_norm: Some(0.5), accumulate: 2, ..base }, 2e-2);
}

/// Values so large that the gradients of a loss scaled by 65536 overflow.
struct Large {
    spec: SampleSpec,
    info: SourceInfo,
}

impl Source for Large {
    fn len(&self) -> usize {
        64
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        scratch.clear();
        scratch.extend((0..4).flat_map(|i| ((index + i) as f32 / 64.0).to_le_bytes()));
        Ok(Sample { input: scratch, target: Target::Values(&[20_000.0]) })
    }
}

#[test]
fn the_loss_scale_goes_down_until_gradients_fit_and_skipped_steps_are_counted() {
    let spec = SampleSpec {
        input_shape: vec![4],
        input_dtype: DType::F32,
        target: TargetSpec::Values { len: 1 },
    };
    let source = Arc::new(Large { spec, info: SourceInfo::default() });
    let layers = vec![Layer::linear(8), Layer::relu(), Layer::linear(1)];
    let model = Sequential::new(layers, source.spec()).expect("the model fits");
    let config = half(RunConfig { steps: Some(16), ..config("cpu") });
    let trainer = Trainer::builder(model, source).config(config).start().expect("starts");
    let (losses, summary) = train(trainer);
    // 2 · 20000 / 16 times the scale must stay below 65520: 16 does, 32 does not. More halvings than
    // the skipped steps in a row that count as divergence.
    assert_eq!((summary.skipped, summary.loss_scale), (12, Some(16.0)));
    assert!(losses.iter().all(|loss| loss.is_finite()));
}

/// Fills a slot with the first samples of a source.
fn fill(slot: &mut Slot, program: &Program, source: &dyn Source) {
    let mut scratch = Vec::new();
    for (i, (mut input, mut target)) in slot.samples(&program.slot).into_iter().enumerate() {
        let sample = source.read(i, &mut scratch).expect("reads");
        input.copy_from_slice(sample.input);
        let Target::Class(class) = sample.target else { panic!("a classifier's data") };
        target.copy_from_slice(&class.to_le_bytes());
    }
    let count = program.slot.batch_size as u32;
    slot.write_header(&StepHeader { count, lr: 0.01, ..Default::default() });
}

/// Runs one step and returns what it left.
fn step(executor: &mut dyn Executor, slot: Slot) -> Done {
    executor.submit(Pass::Train, slot, Wants::default()).expect("submits");
    executor.collect(Duration::from_secs(60)).expect("collects").expect("the pass ends")
}

#[test]
fn an_overflow_halves_the_scale_and_leaves_every_parameter_and_moment() {
    let source = rows(64);
    let builder = Trainer::builder(model(source.spec()), source.clone());
    let program = Arc::new(builder.config(half(config("cpu"))).program().expect("compiles"));
    let mut executor = cpu::Executor::<f32>::new(program.clone(), 1).expect("an executor");
    for variable in &program.params {
        let values = initial_values(variable, 3);
        executor.load(Arena::Params, variable.offset, &values).expect("loads");
    }
    let mut slot = executor.take_slots().expect("slots").remove(0);
    fill(&mut slot, &program, &*source);
    let first = step(&mut executor, slot);
    assert_eq!(first.control[6..], [1.0, 0.0, 0.0, 1.0], "applied");
    // A scale under which the logits' gradient, about 0.75 / 16, is beyond 16 bits.
    let control = program.control_offset.expect("it trains");
    let largest = (LOSS_SCALE_LOG2_MAX - LOSS_SCALE_LOG2) as f32;
    executor.load(Arena::State, control + 8, &[largest]).expect("loads");
    let arenas = [Arena::Params, Arena::First, Arena::Second];
    let before = arenas.map(|arena| executor.arena(arena).to_vec());
    let second = step(&mut executor, first.slot);
    assert_eq!(second.control[2..4], [1.0, 1.0], "applied, skipped");
    assert_eq!(second.control[6..], [0.0, 1.0, largest - 1.0, 0.0]);
    for (arena, before) in arenas.into_iter().zip(&before) {
        let same =
            executor.arena(arena).iter().zip(before).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{arena:?} changed");
    }
    let running = executor.arena(Arena::State);
    assert!(running.iter().enumerate().all(|(i, x)| x.is_finite() || i == control + 4));
    // And again, until it fits.
    let mut done = second;
    while done.control[6] == 0.0 {
        done = step(&mut executor, done.slot);
    }
    assert_eq!(done.control[2], 2.0);
    assert!(done.control[8] < largest - 1.0 && done.control[8] > -4.0);
}

/// Bytes that all operations of a step read and write, as far as they lie in activations.
fn activation_traffic(program: &Program) -> usize {
    let plan = &program.plans[&Pass::Train];
    let bound = plan.nodes.iter().flat_map(|node| node.inputs.iter().chain(&node.outputs));
    let bytes = bound.map(|&id| {
        let mut root = plan.tensor(id);
        while let Role::View(of) = root.role {
            root = plan.tensor(of);
        }
        let is_activation = root.role == Role::Activation;
        if is_activation { root.len() * root.dtype.bytes() } else { 0 }
    });
    bytes.sum()
}

#[test]
fn activations_take_half_the_memory_and_half_the_traffic() {
    let data = fashion();
    let program = |config: RunConfig| {
        let model = by_name("cnn", data.spec()).expect("the model fits");
        Trainer::builder(model, data.clone()).config(config).program().expect("compiles")
    };
    let base = RunConfig { batch_size: 128, ..RunConfig::default() };
    let (full, halved) = (program(base.clone()), program(half(base)));
    let held = |program: &Program| -> usize {
        program.activations.iter().map(ActivationBuffer::bytes).sum()
    };
    let (before, after) = (held(&full), held(&halved));
    eprintln!("activations: {before} to {after} bytes");
    assert!(10 * after <= 6 * before, "{after} of {before} bytes");
    let (before, after) = (activation_traffic(&full), activation_traffic(&halved));
    eprintln!("traffic: {before} to {after} bytes a step");
    assert!(100 * after <= 55 * before, "{after} of {before} bytes a step");
    assert_eq!(full.arenas, halved.arenas);
}
