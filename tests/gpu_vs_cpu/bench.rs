//! A workbench: programs of one or a few hand-made operations, run by any executor.
//!
//! Bytes and integers lie in the slot, as the inputs and the targets of the samples; numbers lie in
//! the arena of parameters, and results in that of gradients. So both executors are used exactly as a
//! trainer uses them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use inflight::batch::{DType, SampleSpec, SlotLayout, StepHeader, TargetSpec};
use inflight::executor::{Executor, Wants};
use inflight::graph::op::Op;
use inflight::graph::plan::{ActivationBuffer, Location, Pass, Place, Plan, Program};
use inflight::graph::precision::{Side, Takes, takes};
use inflight::graph::{Arena, Node, Role, Tensor, TensorId};
use inflight::testing::assert_close;
use inflight::{cpu, gpu};

/// Sections begin at multiples of this many bytes.
const ALIGN: usize = inflight::batch::SLOT_ALIGN_BYTES;

/// The software adapter, opened once for all tests; none where this machine has no Vulkan driver, which
/// is an error with `REQUIRE_GPU=1`. `INFLIGHT_TEST_DEVICE` names another one.
pub fn context() -> Option<Arc<gpu::Context>> {
    static CONTEXT: OnceLock<Option<Arc<gpu::Context>>> = OnceLock::new();
    let open = || {
        let device = std::env::var("INFLIGHT_TEST_DEVICE").unwrap_or_else(|_| "llvmpipe".into());
        match gpu::Context::open(&device) {
            Ok(context) => context,
            Err(error) => {
                let required = std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1");
                assert!(!required, "REQUIRE_GPU=1 and {error}");
                None
            }
        }
    };
    let context = CONTEXT.get_or_init(open).clone();
    if context.is_none() {
        eprintln!("SKIPPED: no adapter to run shaders on; REQUIRE_GPU=1 makes this a failure");
    }
    context
}

/// Two units in the last place of 16 bits: shaders may round either way.
const HALF_RTOL: f64 = 2e-3;

/// Two of the smallest numbers of 16 bits.
const HALF_ATOL: f64 = 1.2e-7;

/// Operations with what they read and what they are to write.
#[derive(Default)]
pub struct Bench {
    plan: Plan,
    /// How many samples a full batch has.
    batch_size: usize,
    /// The inputs and the targets of all samples.
    samples: [Vec<u8>; 2],
    arenas: BTreeMap<Arena, Vec<f32>>,
    /// Where each result lies.
    results: Vec<(Arena, std::ops::Range<usize>)>,
    activations: Vec<ActivationBuffer>,
    header: StepHeader,
}

impl Bench {
    /// A bench for batches of `batch_size` whose step has this header.
    pub fn new(batch_size: usize, header: StepHeader) -> Self {
        Self { batch_size, header, ..Self::default() }
    }

    fn add(&mut self, shape: &[usize], dtype: DType, role: Role, location: Location) -> TensorId {
        let name = format!("tensor {}", self.plan.tensors.len());
        self.plan.tensors.push(Tensor { name, shape: shape.to_vec(), dtype, role });
        self.plan.locations.push(location);
        TensorId(self.plan.tensors.len() - 1)
    }

    /// The step's header as an input.
    pub fn header(&mut self) -> TensorId {
        self.add(&[8], DType::U32, Role::Header, at(Place::Slot, 0))
    }

    /// An input of floats.
    pub fn f32(&mut self, shape: &[usize], values: &[f32]) -> TensorId {
        self.in_arena(Arena::Params, shape, values)
    }

    /// The input of bytes, at most one.
    pub fn u8(&mut self, shape: &[usize], values: &[u8]) -> TensorId {
        assert!(self.samples[0].is_empty());
        self.samples[0] = values.to_vec();
        self.add(shape, DType::U8, Role::Input, at(Place::Slot, 0))
    }

    /// The input of bytes seen as integers of two bytes each, at most one.
    pub fn u16(&mut self, shape: &[usize], values: &[u16]) -> TensorId {
        assert!(self.samples[0].is_empty());
        self.samples[0] = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.add(shape, DType::U16, Role::Input, at(Place::Slot, 0))
    }

    /// The input of integers, at most one.
    pub fn u32(&mut self, shape: &[usize], values: &[u32]) -> TensorId {
        assert!(self.samples[1].is_empty());
        self.samples[1] = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.add(shape, DType::U32, Role::Target, at(Place::Slot, 0))
    }

    fn in_arena(&mut self, arena: Arena, shape: &[usize], values: &[f32]) -> TensorId {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let held = self.arenas.entry(arena).or_default();
        let offset = held.len();
        held.extend_from_slice(values);
        // Between tensors lies something that nobody may overwrite.
        held.resize(held.len().next_multiple_of(ALIGN / 4), UNTOUCHED);
        self.add(shape, DType::F32, Role::Activation, at(Place::Arena(arena), 4 * offset))
    }

    /// A result, which begins as `initial`.
    pub fn in_out(&mut self, shape: &[usize], initial: &[f32]) -> TensorId {
        self.in_out_at(Arena::Grads, shape, initial)
    }

    /// A result in a certain arena: an operation cannot read and write the same one.
    pub fn in_out_at(&mut self, arena: Arena, shape: &[usize], initial: &[f32]) -> TensorId {
        let offset = self.arenas.get(&arena).map_or(0, Vec::len);
        self.results.push((arena, offset..offset + initial.len()));
        self.in_arena(arena, shape, initial)
    }

    /// A result, which begins as something that no operation leaves there.
    pub fn output(&mut self, shape: &[usize]) -> TensorId {
        self.in_out(shape, &vec![UNTOUCHED; shape.iter().product()])
    }

    /// A tensor between two operations.
    pub fn between(&mut self, shape: &[usize], dtype: DType) -> TensorId {
        self.activations.push(ActivationBuffer { len: shape.iter().product(), dtype });
        let place = Place::Activation(self.activations.len() - 1);
        self.add(shape, dtype, Role::Activation, at(place, 0))
    }

    /// Adds an operation.
    pub fn push(&mut self, op: Op, inputs: &[TensorId], outputs: &[TensorId]) {
        let scope = op.name().to_string();
        self.plan.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            scope,
        });
    }

    /// The program of all operations.
    pub fn program(&self) -> Arc<Program> {
        let [input, target] = &self.samples;
        let spec = SampleSpec {
            input_shape: vec![input.len()],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 1 },
        };
        let target_offset = ALIGN + input.len().next_multiple_of(ALIGN);
        let slot_bytes = target_offset + target.len().next_multiple_of(ALIGN);
        let slot = SlotLayout {
            batch_size: self.batch_size,
            input_bytes: input.len() / self.batch_size,
            target_bytes: target.len() / self.batch_size,
            input_offset: ALIGN,
            target_offset,
            framing_bytes: 0,
            framing_offset: slot_bytes,
            slot_bytes,
        };
        let mut plan = self.plan.clone();
        for (tensor, location) in plan.tensors.iter().zip(&mut plan.locations) {
            match tensor.role {
                Role::Input => location.offset_bytes = slot.input_offset,
                Role::Target => location.offset_bytes = slot.target_offset,
                _ => {}
            }
        }
        Arc::new(Program {
            spec,
            slot,
            arenas: self.arenas.iter().map(|(&arena, values)| (arena, values.len())).collect(),
            activations: self.activations.clone(),
            params: vec![],
            states: vec![],
            consts: vec![],
            plans: BTreeMap::from([(Pass::Train, plan)]),
            output: TensorId(0),
            control_offset: None,
            frugal: false,
        })
    }

    /// What the results are after one pass of an executor.
    pub fn run(&self, executor: &mut dyn Executor) -> Vec<Vec<f32>> {
        let layout = &self.program().slot;
        for (&arena, values) in &self.arenas {
            executor.load(arena, 0, values).expect("load");
        }
        let mut slot = executor.take_slots().expect("slots").remove(0);
        for (i, (mut input, mut target)) in slot.samples(layout).into_iter().enumerate() {
            let part = |all: &[u8], len: usize| all[i * len..(i + 1) * len].to_vec();
            input.copy_from_slice(&part(&self.samples[0], layout.input_bytes));
            target.copy_from_slice(&part(&self.samples[1], layout.target_bytes));
        }
        slot.write_header(&self.header);
        executor.submit(Pass::Train, slot, Wants::default()).expect("submit");
        executor.collect(Duration::from_secs(60)).expect("collect").expect("the pass to end");
        let mut stored = BTreeMap::new();
        for &arena in self.arenas.keys() {
            stored.insert(arena, executor.store(arena).expect("store"));
        }
        self.expect_nothing_beside_results(&stored);
        self.results.iter().map(|(arena, range)| stored[arena][range.clone()].to_vec()).collect()
    }

    fn expect_nothing_beside_results(&self, stored: &BTreeMap<Arena, Vec<f32>>) {
        for (&arena, values) in stored {
            let mut beside = values.clone();
            for (_, range) in self.results.iter().filter(|(a, _)| *a == arena) {
                beside[range.clone()].copy_from_slice(&self.arenas[&arena][range.clone()]);
            }
            let differ = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
            let written = beside.iter().zip(&self.arenas[&arena]).position(differ);
            assert_eq!(written, None, "an element of {arena:?} outside of all results was written");
        }
    }

    /// The results on the GPU; none without an adapter.
    pub fn on_gpu(&self) -> Option<Vec<Vec<f32>>> {
        context().map(|context| self.on(context))
    }

    /// The results of the kernels that software adapters get, and of those that hardware gets.
    pub fn on_both(&self) -> Vec<Vec<Vec<f32>>> {
        let contexts = context().map(|context| [context.as_hardware(), context]);
        contexts.into_iter().flatten().map(|context| self.on(context)).collect()
    }

    fn on(&self, context: Arc<gpu::Context>) -> Vec<Vec<f32>> {
        self.run(&mut gpu::Executor::new(context, self.program(), 1).expect("executor"))
    }

    /// The results on the CPU.
    pub fn on_cpu(&self) -> Vec<Vec<f32>> {
        let mut executor = cpu::Executor::new(self.program(), 1).expect("executor");
        self.run(&mut executor)
    }

    /// Expects the same from shader and twin; and again where activations are stored in 16 bits, within
    /// two units in the last of their places.
    #[track_caller]
    pub fn check(&self, atol: f64, rtol: f64) {
        self.check_once(atol, rtol);
        if let Some(halved) = self.halved() {
            halved.check_once(atol + HALF_ATOL, rtol + HALF_RTOL);
        }
    }

    #[track_caller]
    fn check_once(&self, atol: f64, rtol: f64) {
        let gpu = self.on_both();
        let cpu = self.on_cpu();
        for gpu in &gpu {
            assert_eq!(gpu.len(), cpu.len());
            gpu.iter().zip(&cpu).for_each(|(gpu, cpu)| assert_close(gpu, cpu, atol, rtol));
        }
    }

    /// The same bench whose operations read and write 16 bits wherever they can, from numbers that fit;
    /// none where they cannot.
    fn halved(&self) -> Option<Self> {
        let mut halved = Self {
            plan: Plan { nodes: vec![], ..self.plan.clone() },
            samples: self.samples.clone(),
            arenas: self.arenas.clone(),
            results: self.results.clone(),
            activations: self.activations.clone(),
            ..*self
        };
        for node in &self.plan.nodes {
            // Products are held to their twins in all types, few shapes each, by their own tests: compiling
            // so many kernels again takes a software adapter minutes.
            let is_product = takes(&node.op, Side::Input(0)) == Takes::Half;
            let mut node = node.clone();
            let mut after = Vec::new();
            let inputs = (0..node.inputs.len()).map(Side::Input);
            for side in inputs.chain((0..node.outputs.len()).map(Side::Output)) {
                let id = match side {
                    Side::Input(i) => &mut node.inputs[i],
                    Side::Output(i) => &mut node.outputs[i],
                };
                let tensor = self.plan.tensor(*id).clone();
                let location = self.plan.location(*id);
                let Place::Arena(arena) = location.place else { continue };
                if is_product || tensor.dtype != DType::F32 || takes(&node.op, side) == Takes::Full
                {
                    continue;
                }
                let half = halved.between(&tensor.shape, DType::F16);
                match side {
                    Side::Input(_) => {
                        let at = location.offset_bytes / 4;
                        let held = halved.arenas.get_mut(&arena).expect("it was put there");
                        held[at..at + tensor.len()]
                            .iter_mut()
                            .for_each(|x| *x = half::f16::from_f32(*x).to_f32());
                        halved.push(Op::Cast, &[*id], &[half]);
                    }
                    Side::Output(_) => after.push((half, *id)),
                }
                *id = half;
            }
            halved.plan.nodes.push(node);
            after.into_iter().for_each(|(half, id)| halved.push(Op::Cast, &[half], &[id]));
        }
        (halved.plan.nodes.len() > self.plan.nodes.len()).then_some(halved)
    }

    /// Expects the same sum over each result from shader and twin.
    #[track_caller]
    pub fn check_sum(&self, rtol: f64) {
        let sum = |results: &Vec<Vec<f32>>| -> Vec<f64> {
            results.iter().map(|x| x.iter().map(|&x| f64::from(x)).sum()).collect()
        };
        for gpu in &self.on_both() {
            assert_close(&sum(gpu), &sum(&self.on_cpu()), 0.0, rtol);
        }
    }
}

fn at(place: Place, offset_bytes: usize) -> Location {
    Location { place, offset_bytes }
}

/// What results hold before an operation writes them.
pub const UNTOUCHED: f32 = -777.25;
