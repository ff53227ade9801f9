//! A program lowered for a device: its dispatches in the order in which they run, and the memory that they
//! touch.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::Context;
use super::kernel::{Binding, Bound, DeviceCaps, Dispatch, Lowered};
use super::schedule::{Access, Scheduled, Whole, schedule};
use super::survey::DeviceMemory;
use super::tune::Choices;
use crate::graph::memory::apart;
use crate::graph::plan::{Pass, Plan, Program};
use crate::graph::{Node, Tensor, TensorId};

/// Memory that a program may take on a device that does not tell how much it has, for buffers that are not
/// shared: every GPU in use has several times that.
const UNKNOWN_MEMORY_BYTES: u64 = 1 << 30;

/// A program lowered for a device.
#[derive(Debug)]
pub(super) struct Lowering {
    /// The program, with activations where this device keeps them.
    pub(super) program: Arc<Program>,
    pub(super) passes: BTreeMap<Pass, LoweredPass>,
    /// Sizes of all scratch buffers.
    pub(super) scratch_bytes: Vec<usize>,
}

/// A lowered plan.
#[derive(Debug)]
pub(super) struct LoweredPass {
    /// What each operation became.
    pub(super) nodes: Vec<LoweredNode>,
    /// The dispatches as they run: of which operation, which of its own, and what comes before it.
    pub(super) order: Vec<(usize, usize, Scheduled)>,
}

/// A lowered operation.
#[derive(Debug)]
pub(super) struct LoweredNode {
    pub(super) lowered: Lowered,
    /// The buffers behind its scratch memory.
    pub(super) scratch: Vec<usize>,
}

impl Lowering {
    /// Lowers every operation of every plan, by the tile chosen for it where there is one. On a GPU with room for it nothing that a pass writes shares a
    /// buffer with anything else of that pass, so that dispatches can run side by side; a software adapter
    /// runs one after the other, and gains by memory that is still in its caches.
    pub(super) fn new(
        program: &Arc<Program>,
        choices: &Choices,
        context: &Context,
        slots: usize,
    ) -> Self {
        let caps = context.caps();
        let shared = Self::place(Arc::clone(program), choices, &caps, false);
        if caps.software || program.frugal {
            return shared;
        }
        let room = context.memory_bytes().map_or(UNKNOWN_MEMORY_BYTES, |bytes| bytes / 2);
        let alone = Self::place(Arc::new(apart(program)), choices, &caps, true);
        let fits = DeviceMemory::new(&alone, slots, context).total() <= room;
        if fits { alone } else { shared }
    }

    fn place(program: Arc<Program>, choices: &Choices, caps: &DeviceCaps, alone: bool) -> Self {
        let mut scratch_bytes: Vec<usize> = Vec::new();
        let mut passes = BTreeMap::new();
        for (&pass, plan) in &program.plans {
            let mut taken = 0;
            let mut nodes = Vec::with_capacity(plan.nodes.len());
            for node in &plan.nodes {
                let lowered = with_bound(plan, node, |bound| choices.lower(&node.op, bound, caps));
                let first = if alone { taken } else { 0 };
                let scratch: Vec<usize> = (first..).take(lowered.scratch_bytes.len()).collect();
                taken += scratch.len();
                for (&buffer, &bytes) in scratch.iter().zip(&lowered.scratch_bytes) {
                    scratch_bytes.resize(scratch_bytes.len().max(buffer + 1), 0);
                    scratch_bytes[buffer] = bytes.max(scratch_bytes[buffer]);
                }
                nodes.push(LoweredNode { lowered, scratch });
            }
            passes.insert(pass, LoweredPass::new(plan, nodes));
        }
        Self { program, passes, scratch_bytes }
    }
}

impl LoweredPass {
    fn new(plan: &Plan, nodes: Vec<LoweredNode>) -> Self {
        let (mut numbers, mut accesses) = (Vec::new(), Vec::new());
        for (at, node) in nodes.iter().enumerate() {
            for (i, dispatch) in node.lowered.dispatches.iter().enumerate() {
                numbers.push((at, i));
                accesses.push(accesses_of(plan, &plan.nodes[at], node, dispatch));
            }
        }
        let place = |scheduled: Scheduled| {
            let (node, dispatch) = numbers[scheduled.dispatch];
            (node, dispatch, scheduled)
        };
        let order = schedule(&accesses).into_iter().map(place).collect();
        Self { nodes, order }
    }
}

fn with_bound<R>(plan: &Plan, node: &Node, then: impl FnOnce(Bound) -> R) -> R {
    let tensors =
        |ids: &[TensorId]| ids.iter().map(|&id| plan.tensor(id)).collect::<Vec<&Tensor>>();
    let (inputs, outputs) = (tensors(&node.inputs), tensors(&node.outputs));
    then(Bound { inputs: &inputs, outputs: &outputs })
}

/// What a dispatch touches.
fn accesses_of(
    plan: &Plan,
    node: &Node,
    lowered: &LoweredNode,
    dispatch: &Dispatch,
) -> Vec<Access> {
    let tensor = |id: TensorId, writes| {
        let (tensor, location) = (plan.tensor(id), plan.location(id));
        let start = location.offset_bytes;
        // Devices bind whole words.
        let bytes = (tensor.len() * tensor.dtype.bytes()).next_multiple_of(4);
        Access { buffer: Whole::Place(location.place), range: start..start + bytes, writes }
    };
    let scratch = |i: usize, writes| {
        let range = 0..lowered.lowered.scratch_bytes[i];
        Access { buffer: Whole::Scratch(lowered.scratch[i]), range, writes }
    };
    let access = |binding: &Binding| match *binding {
        Binding::Input(i) => tensor(node.inputs[i], false),
        Binding::Output(i) => tensor(node.outputs[i], true),
        Binding::ScratchRead(i) => scratch(i, false),
        Binding::ScratchWrite(i) => scratch(i, true),
    };
    dispatch.bindings.iter().map(access).collect()
}
