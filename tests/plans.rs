//! What is done to a graph on its way to a plan changes no result.

mod common;

use std::time::Duration;

use inflight::batch::StepHeader;
use inflight::cpu;
use inflight::executor::{Executor, Wants};
use inflight::graph::Arena;
use inflight::graph::cost::Cost;
use inflight::graph::op::UpdateRule;
use inflight::graph::plan::{Options, Pass, Program};
use inflight::nn::Module;
use inflight::nn::init::initial_values;
use inflight::nn::losses::Loss;
use inflight::source::Source;
use inflight::train::compile::{Blueprint, Training, compile_with};

use common::{Residual, Rows, model};

const BATCH: usize = 6;
const STEPS: u32 = 4;

fn program(model: &dyn Module, options: Options) -> Program {
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
            ..Training::new(UpdateRule::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.01 })
        }),
    };
    compile_with(&blueprint, options).expect("the model compiles")
}

/// Trains for some steps, the last sample being padding, and evaluates; all losses and what was learned.
fn train(program: &Program) -> (Vec<f32>, Vec<f32>) {
    let mut executor = cpu::Executor::new(program.clone(), 1).expect("an executor");
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
        let done = executor.collect(Duration::ZERO).expect("collects").expect("is done");
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

fn models() -> Vec<(&'static str, Box<dyn Module>)> {
    vec![
        ("residual", Box::new(Residual { width: 4 })),
        ("sequential", Box::new(model(Rows::new(1).spec()))),
    ]
}

#[test]
fn fused_and_unfused_programs_compute_the_same_bits() {
    for (name, model) in models() {
        let [fused, unfused] = [true, false].map(|fuse| program(&*model, Options { fuse }));
        let nodes = |program: &Program| program.plans[&Pass::Train].nodes.len();
        assert!(nodes(&fused) < nodes(&unfused), "{name}: nothing was merged");
        let bytes = |program: &Program| Cost::of_plan(&program.plans[&Pass::Train]).bytes;
        assert!(bytes(&fused) < bytes(&unfused), "{name}: nothing was saved");
        let (expected, found) = (train(&unfused), train(&fused));
        assert!(expected.0.iter().all(|loss| loss.is_finite() && *loss > 0.0), "{expected:?}");
        assert!(expected.0[0] != expected.0[2], "{name} learns nothing");
        assert!(expected == found, "{name}: {:?} became {:?}", expected.0, found.0);
    }
}
