//! The executor itself: the ring of slots, results in order, snapshots, faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use inflight::batch::{DType, SampleSpec, Slot, SlotLayout, StepHeader, TargetSpec};
use inflight::executor::{Done, Executor as _, Wants};
use inflight::gpu::{Context, Executor};
use inflight::graph::op::{CONTROL_LEN, GRAD_PARTIALS, METRICS_LEN, Op, UpdateRule};
use inflight::graph::plan::{ActivationBuffer, Location, Pass, Place, Plan, Program};
use inflight::graph::{Arena, Node, Role, Tensor, TensorId};

use crate::bench::context;

const LONG: Duration = Duration::from_secs(60);
const BATCH: usize = 4;
const WIDTH: usize = 100;

/// Adds `slot input · scale` to the parameters every step, by plain descent at a rate of -1, and
/// reports the sum of the first column as loss.
fn program() -> Arc<Program> {
    let spec = SampleSpec {
        input_shape: vec![WIDTH],
        input_dtype: DType::F32,
        target: TargetSpec::Values { len: 1 },
    };
    let slot = SlotLayout::new(&spec, BATCH);
    let mut plan = Plan::default();
    let mut add = |shape: &[usize], dtype, place, offset_bytes| {
        let (name, role) = (format!("{place:?}"), Role::Activation);
        plan.tensors.push(Tensor { name, shape: shape.to_vec(), dtype, role });
        plan.locations.push(Location { place, offset_bytes });
        TensorId(plan.tensors.len() - 1)
    };
    let state = |offset| (Place::Arena(Arena::State), offset);
    let header = add(&[8], DType::U32, Place::Slot, 0);
    let input = add(&[BATCH * WIDTH], DType::F32, Place::Slot, slot.input_offset);
    let target = add(&[BATCH], DType::F32, Place::Slot, slot.target_offset);
    let grads = add(&[BATCH * WIDTH], DType::F32, Place::Arena(Arena::Grads), 0);
    let partials = add(&[GRAD_PARTIALS], DType::F32, Place::Activation(0), 0);
    let control = add(&[CONTROL_LEN], DType::F32, state(256).0, state(256).1);
    let params = add(&[BATCH * WIDTH], DType::F32, Place::Arena(Arena::Params), 0);
    let metrics = add(&[METRICS_LEN], DType::F32, Place::Arena(Arena::Metrics), 0);
    let output = add(&[BATCH * WIDTH], DType::F32, Place::Activation(1), 0);
    let rule = UpdateRule::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    let decide =
        Op::OptimizerControl { max_norm: f32::INFINITY, beta1: 0.9, beta2: 0.0, scaled: false };
    let node = |op: Op, inputs: &[TensorId], outputs: &[TensorId]| Node {
        op,
        inputs: inputs.to_vec(),
        outputs: outputs.to_vec(),
        scope: op.name().to_string(),
    };
    plan.nodes = vec![
        node(Op::StepMetrics { accuracy: false, per_sample: 1 }, &[target, header], &[metrics]),
        node(Op::Scale { factor: 1.0 }, &[input], &[grads]),
        node(Op::GradSquares, &[grads], &[partials]),
        node(decide, &[partials], &[control]),
        node(Op::OptimizerUpdate { rule }, &[grads, control, header], &[params]),
    ];
    let mut eval = plan.clone();
    eval.nodes = vec![
        node(Op::StepMetrics { accuracy: false, per_sample: 1 }, &[target, header], &[metrics]),
        node(Op::Scale { factor: 2.0 }, &[input], &[output]),
    ];
    let activation = |len| ActivationBuffer { len, dtype: DType::F32 };
    Arc::new(Program {
        spec,
        slot,
        arenas: BTreeMap::from([
            (Arena::Grads, 448),
            (Arena::Params, 448),
            (Arena::State, 128),
            (Arena::Metrics, 64),
        ]),
        activations: vec![activation(GRAD_PARTIALS), activation(BATCH * WIDTH)],
        params: vec![],
        states: vec![],
        consts: vec![],
        plans: BTreeMap::from([(Pass::Train, plan), (Pass::Eval, eval)]),
        output,
        control_offset: Some(64),
        frugal: false,
    })
}

fn executor(slots: usize) -> Option<Executor> {
    Some(Executor::new(context()?, program(), slots).expect("executor"))
}

/// Fills a slot whose inputs are all `value` and whose targets are `value`, too.
fn fill(slot: &mut Slot, value: f32) {
    let (input, target) = ([value; WIDTH], [value]);
    for (mut to, mut to_target) in slot.samples(&program().slot) {
        to.copy_from_slice(bytes(&input));
        to_target.copy_from_slice(bytes(&target));
    }
    slot.write_header(&StepHeader { count: BATCH as u32, lr: -1.0, ..StepHeader::default() });
}

fn bytes(values: &[f32]) -> &[u8] {
    // SAFETY: floats have no padding, and any byte may be read.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn collect(executor: &mut Executor) -> Done {
    executor.collect(LONG).expect("collect").expect("the pass to end")
}

#[test]
fn passes_come_back_in_order_while_others_fill_and_nothing_is_created() {
    let Some(mut executor) = executor(3) else { return };
    let mut free = executor.take_slots().expect("slots");
    let created = executor.objects_created();
    let mut collected = 0.0;
    for step in 1..=30 {
        // One slot stays mapped and free while the others are on their way.
        if free.len() == 1 {
            let done = collect(&mut executor);
            collected += 1.0;
            assert_eq!(done.metrics, [4.0 * collected, 0.0, 4.0, 0.0]);
            assert_eq!(done.control[2], collected, "updates applied");
            free.push(done.slot);
        }
        let mut slot = free.remove(0);
        fill(&mut slot, step as f32);
        executor.submit(Pass::Train, slot, Wants::default()).expect("submit");
    }
    while executor.in_flight() > 0 {
        collect(&mut executor);
    }
    let sum = (1..=30).sum::<i32>() as f32;
    assert_eq!(executor.store(Arena::Params).expect("store")[..400], [sum; 400]);
    assert_eq!(executor.objects_created(), created);
}

/// What does not fit is to be known before there is work to lose.
#[test]
fn what_a_checkpoint_copies_has_its_place_from_the_beginning() {
    let Some(mut executor) = executor(1) else { return };
    let (created, bytes) = (executor.objects_created(), executor.device().allocated_bytes);
    let mut slot = executor.take_slots().expect("slots").remove(0);
    fill(&mut slot, 1.0);
    let snapshot = Wants { snapshot: true, ..Wants::default() };
    executor.submit(Pass::Train, slot, snapshot).expect("submit");
    assert!(collect(&mut executor).snapshot.is_some());
    executor.store(Arena::State).expect("store");
    let device = executor.device();
    assert_eq!((executor.objects_created(), device.allocated_bytes), (created, bytes));
}

#[test]
fn a_snapshot_is_the_state_right_after_its_pass() {
    let Some(mut executor) = executor(2) else { return };
    let mut slots = executor.take_slots().expect("slots").into_iter();
    let [mut one, mut two] = [(); 2].map(|()| slots.next().expect("two slots"));
    fill(&mut one, 1.0);
    fill(&mut two, 2.0);
    let snapshot = Wants { snapshot: true, ..Wants::default() };
    executor.submit(Pass::Train, one, snapshot).expect("submit");
    executor.submit(Pass::Train, two, snapshot).expect("submit");
    // Storing waits for both passes, without collecting them.
    let stored = executor.store(Arena::Params).expect("store");
    let mut of = |expected: f32| {
        let arenas = collect(&mut executor).snapshot.expect("a snapshot").arenas;
        assert_eq!(
            arenas.iter().map(|(arena, _)| *arena).collect::<Vec<_>>(),
            [Arena::Params, Arena::State]
        );
        assert_eq!(arenas[0].1[..400], [expected; 400]);
        arenas
    };
    of(1.0);
    assert_eq!(of(3.0)[0].1, stored);
}

#[test]
fn an_evaluation_brings_the_output_and_changes_nothing() {
    let Some(mut executor) = executor(1) else { return };
    executor.load(Arena::Params, 3, &[7.0, 8.0]).expect("load");
    let mut slot = executor.take_slots().expect("slots").remove(0);
    fill(&mut slot, 1.5);
    let wants = Wants { output: true, ..Wants::default() };
    executor.submit(Pass::Eval, slot, wants).expect("submit");
    let done = collect(&mut executor);
    assert_eq!(done.output.as_deref(), Some([3.0; 400].as_slice()));
    assert_eq!(done.control, [0.0; CONTROL_LEN]);
    assert!(done.device_busy.is_none_or(|busy| busy < LONG), "{:?}", done.device_busy);
    assert_eq!(executor.store(Arena::Params).expect("store")[..6], [0.0, 0.0, 0.0, 7.0, 8.0, 0.0]);
}

#[test]
fn without_patience_collect_does_not_wait() {
    let Some(mut executor) = executor(1) else { return };
    assert!(executor.collect(LONG).expect("collect").is_none(), "nothing is in flight");
    let mut slot = executor.take_slots().expect("slots").remove(0);
    fill(&mut slot, 1.0);
    executor.submit(Pass::Train, slot, Wants::default()).expect("submit");
    let mut done = None;
    while done.is_none() {
        done = executor.collect(Duration::ZERO).expect("collect");
    }
    assert_eq!(executor.in_flight(), 0);
}

#[test]
fn it_can_be_dropped_at_any_moment() {
    let Some(context) = context() else { return };
    for submitted in 0..3 {
        let mut executor = Executor::new(Arc::clone(&context), program(), 3).expect("executor");
        let mut slots = executor.take_slots().expect("slots");
        for mut slot in slots.drain(..submitted) {
            fill(&mut slot, 1.0);
            executor.submit(Pass::Train, slot, Wants::default()).expect("submit");
        }
        drop(executor);
        // Slots outlive their executor: whoever holds one may still be writing.
        slots.iter_mut().for_each(|slot| fill(slot, 2.0));
    }
    context.check().expect("no fault");
}

#[test]
fn a_slot_of_another_ring_is_refused() {
    let (Some(mut executor), Some(mut other)) = (executor(1), executor(1)) else { return };
    let own = executor.take_slots().expect("slots").remove(0);
    for foreign in [
        other.take_slots().expect("slots").remove(0),
        Slot::host(0, own.len()),
        Slot::host(9, own.len()),
    ] {
        let error = executor.submit(Pass::Train, foreign, Wants::default()).unwrap_err();
        assert_eq!(error.kind().exit_code(), 4, "{error}");
    }
    executor.submit(Pass::Train, own, Wants::default()).expect("submit");
    collect(&mut executor);
}

#[test]
fn a_pass_or_a_result_that_the_program_lacks_is_an_error() {
    let Some(mut executor) = executor(2) else { return };
    let slots = executor.take_slots().expect("slots");
    let mut slots = slots.into_iter();
    let mut submit = |pass, wants| {
        executor.submit(pass, slots.next().expect("a slot"), wants).unwrap_err().to_string()
    };
    let error = submit(Pass::Accumulate, Wants::default());
    assert!(error.contains("Accumulate"), "{error}");
    assert!(executor.load(Arena::Second, 0, &[1.0]).is_err());
    assert!(executor.load(Arena::Params, 447, &[1.0, 2.0]).is_err());
    assert!(executor.store(Arena::First).is_err());
}

#[test]
fn a_lost_device_is_an_error_and_no_panic() {
    // A device of its own, since losing the shared one would fail the other tests.
    let Some(shared) = context() else { return };
    let context = Context::open(shared.name()).expect("open").expect("an adapter");
    let mut executor = Executor::new(Arc::clone(&context), program(), 2).expect("executor");
    let mut slots = executor.take_slots().expect("slots").into_iter();
    let first = slots.next().expect("a slot");
    executor.submit(Pass::Train, first, Wants::default()).expect("submit");
    context.destroy();
    let second = slots.next().expect("a slot");
    let error = executor.submit(Pass::Train, second, Wants::default());
    let error = error.expect_err("the device is gone, before anybody waits for it");
    assert_eq!(error.kind().exit_code(), 4, "{error}");
    assert!(error.to_string().contains("lost"), "{error}");
    assert!(executor.collect(LONG).is_err());
    assert!(executor.store(Arena::Params).is_err());
    assert!(executor.load(Arena::Params, 0, &[1.0]).is_err());
}

#[test]
fn what_does_not_fit_the_device_is_an_error_with_its_size() {
    let Some(context) = context() else { return };
    for (len, expected) in [(1usize << 40, "4398046511104 bytes"), (1 << 28, "1073741824 bytes")] {
        let mut program = Arc::unwrap_or_clone(program());
        program.activations[1].len = len;
        let plan = program.plans.get_mut(&Pass::Eval).expect("a plan");
        plan.tensors[program.output.0].shape = vec![len];
        let error = Executor::new(Arc::clone(&context), Arc::new(program), 1).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("--batch-size"), "{error}");
    }
    context.check().expect("no fault");
}
