use super::*;
use crate::batch::{DType, SampleSpec, SlotLayout, TargetSpec};
use crate::executor::Executor as _;
use crate::graph::grad::backward;
use crate::graph::op::{GRAD_PARTIALS, Op, UpdateRule};
use crate::graph::plan::{CONTROL_NAME, ProgramBuilder};
use crate::graph::{Graph, Init, Role, TensorId};
use crate::nn::layers::Layer;
use crate::nn::losses::Loss;
use crate::nn::sequential::Sequential;
use crate::nn::{Mode, Module, init};
use crate::testing::{assert_close, normal};

const ADAMW: UpdateRule =
    UpdateRule::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, decoupled: true };

fn images() -> SampleSpec {
    SampleSpec {
        input_shape: vec![2, 8, 8],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 5 },
    }
}

/// A bit of everything.
fn layers() -> Vec<Layer> {
    vec![
        Layer::conv2d(6, 3, 1),
        Layer::batch_norm(),
        Layer::relu(),
        Layer::max_pool2d(2),
        Layer::dropout(0.2),
        Layer::flatten(),
        Layer::linear(33),
        Layer::gelu(),
        Layer::layer_norm(),
        Layer::classes(),
    ]
}

/// Input, model, loss and metrics; returns the output and its gradient.
fn forward(g: &mut Graph, spec: &SampleSpec, batch: usize, mode: Mode) -> (TensorId, TensorId) {
    let shape = [&[batch], &spec.input_shape[..]].concat();
    let mut x = g.add_tensor("input", &shape, spec.input_dtype, Role::Input);
    if spec.input_dtype == DType::U8 {
        let scale = g.constant("scale", vec![1.0 / 255.0; shape[1]]);
        let shift = g.constant("shift", vec![-0.5; shape[1]]);
        x = g.push_one(Op::NormalizeU8, &[x, scale, shift]).unwrap();
    }
    let layers = if spec.input_dtype == DType::U8 { layers() } else { vec![Layer::linear(3)] };
    let y = Sequential::new(layers, spec).unwrap().build(g, x, mode).unwrap();
    let (shape, dtype) = match spec.target {
        TargetSpec::Class { .. } => (vec![batch], DType::U32),
        TargetSpec::Values { len } => (vec![batch, len], DType::F32),
        TargetSpec::Tokens { .. } => unreachable!("no model takes tokens"),
    };
    let target = g.add_tensor("target", &shape, dtype, Role::Target);
    let header = g.header();
    let loss = Loss::for_target(spec).build(g, y, target, header, true, None).unwrap();
    let metrics = g.add_tensor("metrics", &[METRICS_LEN], DType::F32, Role::Metrics);
    let accuracy = loss.row_correct.is_some();
    let inputs: Vec<TensorId> =
        [Some(loss.row_loss), loss.row_correct, Some(header)].into_iter().flatten().collect();
    g.push_into(Op::StepMetrics { accuracy, per_sample: 1 }, &inputs, &[metrics]);
    (y, loss.output_gradient.unwrap())
}

fn optimize(g: &mut Graph, len: usize, rule: UpdateRule) {
    let stretch = |g: &mut Graph, arena, offset, len| {
        g.add_tensor("stretch", &[len], DType::F32, Role::Stretch(arena, offset))
    };
    g.set_scope("");
    let control = g.state(CONTROL_NAME, &[CONTROL_LEN], Init::Constant(0.0));
    let gradients = stretch(g, Arena::Grads, 0, len);
    let partials = stretch(g, Arena::Metrics, 64, GRAD_PARTIALS);
    g.push_into(Op::GradSquares, &[gradients], &[partials]);
    let decide = Op::OptimizerControl { max_norm: 1.0, beta1: 0.9, beta2: 0.999, scaled: false };
    g.push_into(decide, &[partials], &[control]);
    let arenas = [Arena::Params, Arena::First, Arena::Second];
    let outputs = arenas.map(|arena| stretch(g, arena, 0, len));
    let header = g.header();
    let outputs = &outputs[..1 + rule.moments()];
    g.push_into(Op::OptimizerUpdate { rule }, &[gradients, control, header], outputs);
}

fn program(spec: &SampleSpec, batch: usize) -> Program {
    let mut builder = ProgramBuilder::new(spec, batch);
    let mut g = Graph::new();
    let (y, dy) = forward(&mut g, spec, batch, Mode::Train);
    backward(&mut g, y, dy).unwrap();
    let len = builder.reserve_params(&g).unwrap();
    optimize(&mut g, len, ADAMW);
    builder.add(Pass::Train, g, &[]).unwrap();
    let mut g = Graph::new();
    let (y, _) = forward(&mut g, spec, batch, Mode::Eval);
    builder.add(Pass::Eval, g, &[y]).unwrap();
    builder.build(y)
}

/// An executor with initial values, and its slots.
fn start<T: Real>(program: &Program) -> (Executor<T>, Vec<Slot>) {
    let mut executor = Executor::<T>::in_precision(program.clone(), 2).unwrap();
    for (arena, variables) in [(Arena::Params, &program.params), (Arena::State, &program.states)] {
        for variable in variables {
            let values = init::initial_values(variable, 7);
            executor.load(arena, variable.offset, &values).unwrap();
        }
    }
    let slots = executor.take_slots().unwrap();
    assert!(executor.take_slots().unwrap().is_empty());
    (executor, slots)
}

/// Images whose class shows in one of their rows; a different batch for each `key`.
fn fill(slot: &mut Slot, layout: &SlotLayout, key: u64, count: usize) {
    let header =
        StepHeader { count: count as u32, step: key as u32, lr: 0.01, ..Default::default() };
    slot.write_header(&header);
    let noise = normal(key, layout.batch_size * layout.input_bytes);
    for (i, (mut input, mut target)) in slot.samples(layout).into_iter().enumerate() {
        let class = (key as usize + i * 3) % 5;
        let pixels = (0..layout.input_bytes).map(|at| {
            let lit = if at / 8 % 8 == class { 150.0 } else { 40.0 };
            (lit + 20.0 * noise[i * layout.input_bytes + at]).clamp(0.0, 255.0) as u8
        });
        input.copy_from_slice(&pixels.collect::<Vec<_>>());
        target.copy_from_slice(&(class as u32).to_le_bytes());
    }
}

fn finish<T: Real>(executor: &mut Executor<T>) -> Done {
    assert_eq!(executor.in_flight(), 1);
    executor.collect(Duration::ZERO).unwrap().unwrap()
}

/// Mean losses of some steps, the last batch a partial one.
fn train<T: Real>(executor: &mut Executor<T>, slots: &mut Vec<Slot>, steps: u64) -> Vec<f32> {
    let layout = executor.program.slot.clone();
    let mut losses = Vec::new();
    for step in 0..steps {
        let count = if step + 1 == steps { layout.batch_size - 3 } else { layout.batch_size };
        let mut slot = slots.pop().unwrap();
        fill(&mut slot, &layout, step, count);
        executor.submit(Pass::Train, slot, Wants::default()).unwrap();
        let done = finish(executor);
        assert_eq!(done.metrics[2], count as f32);
        assert_eq!(done.control[2], (step + 1) as f32);
        losses.push(done.metrics[0] / done.metrics[2]);
        slots.push(done.slot);
    }
    losses
}

#[test]
fn learns_the_same_in_either_precision_and_allocates_nothing_meanwhile() {
    let program = program(&images(), 16);
    let (mut single, mut slots) = start::<f32>(&program);
    let (objects, bytes) = (single.objects_created(), single.device().allocated_bytes);
    let losses = train(&mut single, &mut slots, 40);
    assert!(losses[0] > 1.2 && losses[39] < 0.3, "{losses:?}");
    assert_eq!((single.objects_created(), single.device().allocated_bytes), (objects, bytes));
    let (mut double, mut slots) = start::<f64>(&program);
    let expected = train(&mut double, &mut slots, 40);
    assert_close(&losses[..10], &expected[..10], 1e-4, 1e-3);
}

#[test]
fn threads_change_no_bit() {
    let program = program(&images(), 16);
    let run = |threads: usize| {
        let (executor, mut slots) = start::<f32>(&program);
        let mut executor = executor.with_threads(threads).unwrap();
        train(&mut executor, &mut slots, 5);
        executor.snapshot()
    };
    let one = run(1);
    assert_eq!(one.arenas.len(), 4);
    assert!(one == run(2) && one == run(5), "results differ between numbers of threads");
}

#[test]
fn eval_brings_output_and_metrics_and_changes_nothing() {
    let program = program(&images(), 16);
    let (mut executor, mut slots) = start::<f32>(&program);
    train(&mut executor, &mut slots, 40);
    let before = executor.snapshot();
    let mut slot = slots.pop().unwrap();
    fill(&mut slot, &program.slot, 99, 10);
    let wants = Wants { output: true, snapshot: true, ..Wants::default() };
    executor.submit(Pass::Eval, slot, wants).unwrap();
    let done = finish(&mut executor);
    assert_eq!(done.snapshot.as_ref(), Some(&before));
    assert_eq!(executor.store(Arena::Params).unwrap(), executor.arena(Arena::Params));
    let output = done.output.unwrap();
    assert_eq!(output.len(), 16 * 5);
    let best = |row: &[f32]| (0..5).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    let hits = output.chunks(5).take(10).enumerate().filter(|(i, y)| best(y) == (99 + i * 3) % 5);
    assert_eq!(done.metrics[1], hits.count() as f32);
    assert!(done.metrics[1] >= 9.0, "{:?}", done.metrics);
    assert!(done.device_busy.is_some());
}

#[test]
fn a_gradient_that_is_not_finite_skips_the_update() {
    let program = program(&images(), 16);
    let (mut executor, mut slots) = start::<f32>(&program);
    let mut parameters = executor.store(Arena::Params).unwrap();
    executor.load(Arena::Params, 3, &[f32::NAN]).unwrap();
    parameters[3] = f32::NAN;
    let mut slot = slots.pop().unwrap();
    fill(&mut slot, &program.slot, 0, 16);
    executor.submit(Pass::Train, slot, Wants::default()).unwrap();
    let done = finish(&mut executor);
    assert_eq!(done.control[2..4], [0.0, 1.0]);
    assert_eq!(done.control[6..], [0.0, 1.0, 0.0, 0.0]);
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(executor.arena(Arena::Params)), bits(&parameters));
    assert!(executor.arena(Arena::First).iter().all(|&m| m == 0.0));
}

/// Linear regression: floats in the slot, read in place or converted.
fn regression<T: Real>() -> ([f32; 4], Vec<T>) {
    let spec = SampleSpec {
        input_shape: vec![4],
        input_dtype: DType::F32,
        target: TargetSpec::Values { len: 3 },
    };
    let program = program(&spec, 6);
    let (mut executor, mut slots) = start::<T>(&program);
    let mut slot = slots.pop().unwrap();
    slot.write_header(&StepHeader { count: 5, lr: 0.1, ..Default::default() });
    for (i, (mut input, mut target)) in slot.samples(&program.slot).into_iter().enumerate() {
        let numbers = |key, len| normal(key, len).iter().map(|&x| x as f32).collect::<Vec<_>>();
        input.copy_from_slice(bytemuck::cast_slice(&numbers(i as u64, 4)));
        target.copy_from_slice(bytemuck::cast_slice(&numbers(50 + i as u64, 3)));
    }
    executor.submit(Pass::Train, slot, Wants::default()).unwrap();
    (finish(&mut executor).metrics, executor.arena(Arena::Grads).to_vec())
}

#[test]
fn floats_of_a_slot_are_read_in_both_precisions() {
    let (metrics, gradients) = regression::<f32>();
    let (expected_metrics, expected) = regression::<f64>();
    assert!(metrics[0] > 1.0 && gradients.iter().any(|g| g.abs() > 0.1));
    assert_close(&metrics, &expected_metrics, 1e-5, 1e-5);
    assert_close(&gradients, &expected, 1e-6, 1e-5);
}

#[test]
fn refuses_what_it_cannot_run() {
    let program = program(&images(), 16);
    let (mut executor, mut slots) = start::<f32>(&program);
    let mut slot = slots.pop().unwrap();
    slot.write_header(&StepHeader { count: 17, ..Default::default() });
    let error = executor.submit(Pass::Train, slot, Wants::default()).unwrap_err();
    assert_eq!(error.to_string(), "compute: slot 1: holds 17 samples, expected 1 to 16");
    let slot = slots.pop().unwrap();
    let error = executor.submit(Pass::Accumulate, slot, Wants::default()).unwrap_err();
    assert_eq!(error.to_string(), "compute: slot 0: the program has no Accumulate pass");
    let slot = Slot::host(0, 16);
    assert!(executor.submit(Pass::Train, slot, Wants::default()).is_err());
    assert!(executor.load(Arena::Params, usize::MAX / 2, &[1.0]).is_err());
    assert!(executor.load(Arena::GradSums, 0, &[1.0]).is_err());
    assert_eq!(executor.in_flight(), 0);
}

#[test]
fn a_plan_that_reads_what_it_writes_is_refused() {
    let mut program = program(&images(), 16);
    let plan = program.plans.get_mut(&Pass::Train).unwrap();
    let node =
        plan.nodes.iter().find(|node| matches!(node.op, Op::MaxPool2dGrad { .. })).unwrap().clone();
    plan.locations[node.outputs[0].0] = plan.locations[node.inputs[0].0];
    let error = Executor::new(program, 1).unwrap_err().to_string();
    assert!(error.ends_with("max_pool2d_grad: reads a buffer that it also writes"), "{error}");
}

#[test]
fn the_device_is_described() {
    let info = device_info();
    assert_eq!((&info.backend[..], &info.kind[..]), ("cpu", "twins"));
    assert!(!info.name.is_empty());
}
