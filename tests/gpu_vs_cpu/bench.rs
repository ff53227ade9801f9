//! A workbench: programs of one or a few hand-made operations, run by any executor.
//!
//! All inputs lie in the slot, results in one arena, so both executors are used exactly as a trainer
//! uses them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use inflight::batch::{DType, SampleSpec, SlotLayout, StepHeader, TargetSpec};
use inflight::executor::{Executor, Wants};
use inflight::graph::op::Op;
use inflight::graph::plan::{ActivationBuffer, Location, Pass, Place, Plan, Program};
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

/// Operations with what they read and what they are to write.
#[derive(Default)]
pub struct Bench {
    plan: Plan,
    slot: Vec<u8>,
    arenas: BTreeMap<Arena, Vec<f32>>,
    /// Where each result lies.
    results: Vec<(Arena, std::ops::Range<usize>)>,
    activations: Vec<ActivationBuffer>,
    header: StepHeader,
}

impl Bench {
    /// A bench whose step has this header.
    pub fn new(header: StepHeader) -> Self {
        Self { header, slot: vec![0; ALIGN], ..Self::default() }
    }

    fn add(
        &mut self,
        shape: &[usize],
        dtype: DType,
        place: Place,
        offset_bytes: usize,
    ) -> TensorId {
        let name = format!("tensor {}", self.plan.tensors.len());
        let tensor = Tensor { name, shape: shape.to_vec(), dtype, role: Role::Activation };
        self.plan.tensors.push(tensor);
        self.plan.locations.push(Location { place, offset_bytes });
        TensorId(self.plan.tensors.len() - 1)
    }

    fn input(&mut self, shape: &[usize], dtype: DType, bytes: &[u8]) -> TensorId {
        assert_eq!(shape.iter().product::<usize>() * dtype.bytes(), bytes.len());
        let offset = self.slot.len();
        self.slot.extend_from_slice(bytes);
        self.slot.resize(self.slot.len().next_multiple_of(ALIGN), 0xab);
        self.add(shape, dtype, Place::Slot, offset)
    }

    /// The step's header as an input.
    pub fn header(&mut self) -> TensorId {
        self.add(&[8], DType::U32, Place::Slot, 0)
    }

    /// An input of floats.
    pub fn f32(&mut self, shape: &[usize], values: &[f32]) -> TensorId {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.input(shape, DType::F32, &bytes)
    }

    /// An input of integers.
    pub fn u32(&mut self, shape: &[usize], values: &[u32]) -> TensorId {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.input(shape, DType::U32, &bytes)
    }

    /// An input of bytes.
    pub fn u8(&mut self, shape: &[usize], values: &[u8]) -> TensorId {
        self.input(shape, DType::U8, values)
    }

    /// A result, which begins as `initial`.
    pub fn in_out(&mut self, shape: &[usize], initial: &[f32]) -> TensorId {
        self.in_out_at(Arena::Grads, shape, initial)
    }

    /// A result in a certain arena: an operation cannot read and write the same one.
    pub fn in_out_at(&mut self, arena: Arena, shape: &[usize], initial: &[f32]) -> TensorId {
        assert_eq!(shape.iter().product::<usize>(), initial.len());
        let values = self.arenas.entry(arena).or_default();
        let offset = values.len();
        values.extend_from_slice(initial);
        // Between results lies something that nobody may overwrite.
        values.resize(values.len().next_multiple_of(ALIGN / 4), UNTOUCHED);
        self.results.push((arena, offset..offset + initial.len()));
        self.add(shape, DType::F32, Place::Arena(arena), 4 * offset)
    }

    /// A result, which begins as something that no operation leaves there.
    pub fn output(&mut self, shape: &[usize]) -> TensorId {
        self.in_out(shape, &vec![UNTOUCHED; shape.iter().product()])
    }

    /// A tensor between two operations.
    pub fn between(&mut self, shape: &[usize], dtype: DType) -> TensorId {
        self.activations.push(ActivationBuffer { len: shape.iter().product(), dtype });
        self.add(shape, dtype, Place::Activation(self.activations.len() - 1), 0)
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
        let bytes = self.slot.len() - ALIGN;
        let spec = SampleSpec {
            input_shape: vec![bytes],
            input_dtype: DType::U8,
            target: TargetSpec::Values { len: 0 },
        };
        // One sample is the whole slot after the header.
        let slot = SlotLayout {
            batch_size: 1,
            input_bytes: bytes,
            target_bytes: 0,
            input_offset: ALIGN,
            target_offset: self.slot.len(),
            slot_bytes: self.slot.len(),
        };
        Arc::new(Program {
            spec,
            slot,
            arenas: self.arenas.iter().map(|(&arena, values)| (arena, values.len())).collect(),
            activations: self.activations.clone(),
            params: vec![],
            states: vec![],
            consts: vec![],
            plans: BTreeMap::from([(Pass::Train, self.plan.clone())]),
            output: TensorId(0),
            control_offset: None,
        })
    }

    /// What the results are after one pass of an executor.
    pub fn run(&self, executor: &mut dyn Executor) -> Vec<Vec<f32>> {
        let layout = &self.program().slot;
        for (&arena, values) in &self.arenas {
            executor.load(arena, 0, values).expect("load");
        }
        let mut slot = executor.take_slots().expect("slots").remove(0);
        slot.samples(layout)[0].0.copy_from_slice(&self.slot[ALIGN..]);
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
                beside[range.clone()].fill(UNTOUCHED);
            }
            let written = beside.iter().position(|&x| x != UNTOUCHED);
            assert_eq!(written, None, "an element of {arena:?} outside of all results was written");
        }
    }

    /// The results on the GPU; none without an adapter.
    pub fn on_gpu(&self) -> Option<Vec<Vec<f32>>> {
        let mut executor = gpu::Executor::new(context()?, self.program(), 1).expect("executor");
        Some(self.run(&mut executor))
    }

    /// The results on the CPU.
    pub fn on_cpu(&self) -> Vec<Vec<f32>> {
        let mut executor = cpu::Executor::new(self.program(), 1).expect("executor");
        self.run(&mut executor)
    }

    /// Expects the same from shader and twin.
    #[track_caller]
    pub fn check(&self, atol: f64, rtol: f64) {
        let Some(gpu) = self.on_gpu() else { return };
        let cpu = self.on_cpu();
        assert_eq!(gpu.len(), cpu.len());
        for (gpu, cpu) in gpu.iter().zip(&cpu) {
            assert_close(gpu, cpu, atol, rtol);
        }
    }

    /// Expects the same sum over each result from shader and twin.
    #[track_caller]
    pub fn check_sum(&self, rtol: f64) {
        let Some(gpu) = self.on_gpu() else { return };
        let sum = |results: Vec<Vec<f32>>| -> Vec<f64> {
            results.iter().map(|x| x.iter().map(|&x| f64::from(x)).sum()).collect()
        };
        assert_close(&sum(gpu), &sum(self.on_cpu()), 0.0, rtol);
    }
}

/// What results hold before an operation writes them.
pub const UNTOUCHED: f32 = -777.25;
