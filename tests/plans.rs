//! What is done to a graph on its way to a plan changes no result.

mod common;

use std::sync::Arc;
use std::time::Duration;

use inflight::batch::StepHeader;
use inflight::executor::{Executor, Wants};
use inflight::gpu::survey::Survey;
use inflight::graph::cost::Cost;
use inflight::graph::op::{Op, UpdateRule};
use inflight::graph::plan::{ActivationBuffer, Options, Pass, Program};
use inflight::graph::{Arena, Graph, Init, TensorId};
use inflight::nn::init::initial_values;
use inflight::nn::layers::Layer;
use inflight::nn::losses::Loss;
use inflight::nn::mixing::Mixing;
use inflight::nn::sequential::Sequential;
use inflight::nn::{Mode, Module};
use inflight::source::Source;
use inflight::train::compile::{Blueprint, Training, compile_with};
use inflight::{cpu, gpu};

use common::{Residual, Rows, devices, model};

const BATCH: usize = 6;
const STEPS: u32 = 4;

fn program(model: &dyn Module, options: Options) -> Program {
    mixed(model, options, Mixing::default())
}

fn mixed(model: &dyn Module, options: Options, mixing: Mixing) -> Program {
    let rows = Rows::new(1);
    let blueprint = Blueprint {
        model,
        spec: rows.spec(),
        batch_size: BATCH,
        mean: &[0.3],
        std: &[0.4],
        loss: Loss::CrossEntropy { smoothing: 0.1 },
        training: Some(Training {
            clip_norm: Some(5.0),
            accumulate: 2,
            mixing,
            ..Training::new(UpdateRule::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.01 })
        }),
    };
    compile_with(&blueprint, options).expect("the model compiles")
}

/// Trains for some steps, the last sample being padding, and evaluates; all losses and what was learned.
fn train(program: &Program, executor: &mut dyn Executor) -> (Vec<f32>, Vec<f32>) {
    for (arena, variables) in [(Arena::Params, &program.params), (Arena::State, &program.states)] {
        for variable in variables {
            let values = initial_values(variable, 3);
            executor.load(arena, variable.offset, &values).expect("loads");
        }
    }
    let source = Rows::new(BATCH * STEPS as usize * 2);
    let mut slot = executor.take_slots().expect("slots").pop();
    let mut losses = Vec::new();
    let mut run = |pass, step: u32, micro_step: u32| {
        let mut filled = slot.take().expect("the slot");
        let samples = filled.samples(&program.slot).into_iter().enumerate();
        for (i, (mut input, mut target)) in samples {
            let index = (2 * step + micro_step) as usize * BATCH + i;
            let mut scratch = Vec::new();
            let sample = source.read(index, &mut scratch).expect("reads");
            input.copy_from_slice(sample.input);
            let inflight::source::Target::Class(class) = sample.target else { panic!("a class") };
            target.copy_from_slice(&class.to_le_bytes());
        }
        let count = BATCH as u32 - 1;
        let header = StepHeader {
            count,
            step,
            seed_low: 5,
            lr: 0.05,
            micro_step,
            weight: 0.5,
            ..StepHeader::default()
        };
        filled.write_header(&header);
        executor.submit(pass, filled, Wants::default()).expect("submits");
        let done = executor.collect(Duration::from_secs(60)).expect("collects").expect("is done");
        slot = Some(done.slot);
        losses.push(done.metrics[0]);
    };
    for step in 0..STEPS {
        run(Pass::Accumulate, step, 0);
        run(Pass::Train, step, 1);
    }
    run(Pass::Eval, 0, 0);
    let learned = [Arena::Params, Arena::State].map(|arena| executor.store(arena).expect("reads"));
    (losses, learned.concat())
}

fn train_on_twins(program: &Program) -> (Vec<f32>, Vec<f32>) {
    train(program, &mut cpu::Executor::new(program.clone(), 1).expect("an executor"))
}

/// Blocks as of a transformer: of a norm, a layer and what they read, with both kinds of norm; between them the sums go on.
struct Blocks;

impl Module for Blocks {
    fn build(&self, g: &mut Graph, x: TensorId, mode: Mode) -> inflight::Result<TensorId> {
        let (rows, width) = (g.shape(x)[0], g.tensor(x).len() / g.shape(x)[0]);
        let mut x = g.reshape(x, &[rows, width])?;
        for i in 0..4 {
            g.set_scope(format!("blocks.{i}"));
            let [gamma, beta] =
                ["gamma", "beta"].map(|name| g.param(name, &[width], Init::Constant(0.7)));
            let y = if i % 2 == 0 {
                let norm = Op::LayerNorm { eps: 1e-5, residual: false };
                g.push(norm, &[x, gamma, beta])?[0]
            } else {
                let norm = Op::RmsNorm { eps: 1e-5, residual: false };
                let y = g.push(norm, &[x, gamma])?[0];
                g.push_one(Op::Bias, &[y, beta])?
            };
            g.set_scope(format!("blocks.{i}.linear"));
            let y = Layer::linear(width).build(g, y, mode)?;
            x = g.push_one(Op::Add, &[x, y])?;
        }
        g.set_scope("head");
        Layer::linear(common::CLASSES).build(g, x, mode)
    }
}

fn models() -> Vec<(&'static str, Box<dyn Module>)> {
    vec![
        ("residual", Box::new(Residual { width: 4 })),
        ("sequential", Box::new(model(Rows::new(1).spec()))),
        ("blocks", Box::new(Blocks)),
    ]
}

#[test]
fn fused_and_unfused_programs_compute_the_same_bits() {
    for (name, model) in models() {
        let [fused, unfused] =
            [true, false].map(|fuse| program(&*model, Options { fuse, ..Options::default() }));
        let nodes = |program: &Program| program.plans[&Pass::Train].nodes.len();
        assert!(nodes(&fused) < nodes(&unfused), "{name}: nothing was merged");
        let bytes = |program: &Program| Cost::of_plan(&program.plans[&Pass::Train]).bytes;
        assert!(bytes(&fused) < bytes(&unfused), "{name}: nothing was saved");
        let (expected, found) = (train_on_twins(&unfused), train_on_twins(&fused));
        assert!(expected.0.iter().all(|loss| loss.is_finite() && *loss > 0.0), "{expected:?}");
        assert!(expected.0[0] != expected.0[2], "{name} learns nothing");
        assert!(expected == found, "{name}: {:?} became {:?}", expected.0, found.0);
    }
}

fn activation_bytes(program: &Program) -> usize {
    program.activations.iter().map(ActivationBuffer::bytes).sum()
}

#[test]
fn what_is_made_again_has_the_same_bits_and_takes_less_memory() {
    // So wide that tensors are large enough to be worth making again.
    let blocks = (0..10).flat_map(|_| {
        [Layer::conv2d(64, 3, 1), Layer::batch_norm(), Layer::gelu(), Layer::dropout(0.1)]
    });
    let rows = Rows::new(1);
    let layers = blocks.chain([Layer::flatten(), Layer::classes()]).collect();
    let deep = Sequential::new(layers, rows.spec()).expect("fits");
    let residual = Residual { width: 64 };
    let [plain, both] = [None, Some(0.4)].map(|alpha| Mixing { mixup: alpha, cutmix: alpha });
    let models: [(&str, &dyn Module, Mixing, f64); 3] = [
        ("residual", &residual, plain, 0.99),
        ("deep", &deep, plain, 0.6),
        ("deep, of mixed batches", &deep, both, 0.6),
    ];
    for (name, model, mixing, share) in models {
        let [kept, again] = [false, true]
            .map(|recompute| mixed(model, Options { recompute, ..Options::default() }, mixing));
        let [before, after] = [&kept, &again].map(activation_bytes);
        assert!((after as f64) < share * before as f64, "{name}: {before} became {after} bytes");
        let (expected, found) = (train_on_twins(&kept), train_on_twins(&again));
        assert!(expected.0.iter().all(|loss| loss.is_finite() && *loss > 0.0), "{expected:?}");
        assert!(expected == found, "{name}: {:?} became {:?}", expected.0, found.0);
    }
}

fn context() -> Option<Arc<gpu::Context>> {
    devices().contains(&"llvmpipe").then(|| {
        gpu::Context::open("llvmpipe").expect("opens").expect("a name never means the twins")
    })
}

#[test]
fn memory_is_foretold_to_the_byte_and_refused_where_there_is_less() {
    let Some(software) = context() else { return };
    for context in [software.as_hardware(), software] {
        for (name, model) in models() {
            let program = Arc::new(program(&*model, Options::default()));
            let memory = Survey::new(&program, &context, 2).memory;
            let mut executor =
                gpu::Executor::new(context.clone(), program.clone(), 2).expect("an executor");
            let allocated = executor.device().allocated_bytes;
            assert_eq!(allocated, memory.total(), "{name}: {memory:?}");
            let mut slot = executor.take_slots().expect("slots").remove(0);
            slot.write_header(&StepHeader { count: 1, ..StepHeader::default() });
            let wants = Wants { snapshot: true, ..Wants::default() };
            executor.submit(Pass::Eval, slot, wants).expect("submits");
            assert_eq!(executor.device().allocated_bytes, memory.total(), "{name}: {memory:?}");

            let small = context.with_memory(10_000);
            let error = gpu::Executor::new(small, program, 2).expect_err("too little").to_string();
            assert!(error.contains("bytes (parameters and moments "), "{error}");
            assert!(error.contains("the device has 10000; try --"), "{error}");
        }
    }
}

/// With room a GPU gives every activation a buffer of its own, and orders dispatches anew.
#[test]
fn with_room_dispatches_wait_less_often_and_compute_the_same_bits() {
    let Some(software) = context() else { return };
    let roomy = software.as_hardware();
    for (name, model) in models() {
        let program = Arc::new(program(&*model, Options::default()));
        let needed = Survey::new(&program, &software, 1).memory.total();
        let tight = roomy.with_memory(needed + needed / 2);
        let [few, many] = [&roomy, &tight].map(|context| Survey::new(&program, context, 1));
        assert!(few.memory.activations > many.memory.activations, "{few:?} {many:?}");
        let counts = |survey: &Survey| survey.passes[&Pass::Train];
        assert_eq!(counts(&few).dispatches, counts(&many).dispatches);
        assert!(counts(&few).barriers < counts(&many).barriers, "{few:?} {many:?}");
        let [found, expected] = [roomy.clone(), tight].map(|context| {
            let executor = gpu::Executor::new(context, program.clone(), 1);
            train(&program, &mut executor.expect("an executor"))
        });
        assert!(expected == found, "{name}: {:?} became {:?}", expected.0, found.0);
        let twins = train_on_twins(&program);
        inflight::testing::assert_close(&found.0, &twins.0, 1e-2, 1e-2);
    }
}
