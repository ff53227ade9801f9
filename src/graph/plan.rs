//! The plan: what an executor records once and then runs every step.

use std::collections::BTreeMap;

use super::{Arena, Init, Node, Tensor, TensorId};
use crate::batch::{DType, SampleSpec, SlotLayout};

/// Which memory a tensor lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The slot of the current batch; on a GPU its copy in device memory.
    Slot,
    /// One of the arenas.
    Arena(Arena),
    /// One of the shared activation buffers, [`Program::activations`].
    Activation(usize),
}

/// Where a tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// In which memory.
    pub place: Place,
    /// Offset in bytes, a multiple of [`SLOT_ALIGN_BYTES`](crate::batch::SLOT_ALIGN_BYTES).
    pub offset_bytes: usize,
}

/// The operations of one pass over a batch, in order, with every tensor placed.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// Where each tensor lies; the same index as `tensors`.
    pub locations: Vec<Location>,
    /// The operations, in order.
    pub nodes: Vec<Node>,
}

impl Plan {
    /// The tensor behind an id.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0]
    }

    /// Where a tensor lies.
    pub fn location(&self, id: TensorId) -> Location {
        self.locations[id.0]
    }
}

/// A parameter or state that lives in an arena for the whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// PyTorch's name.
    pub name: String,
    /// Shape in PyTorch's layout.
    pub shape: Vec<usize>,
    /// Offset in its arena, in elements.
    pub offset: usize,
    /// How it starts.
    pub init: Init,
}

impl Variable {
    /// Its elements in the arena.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.shape.iter().product::<usize>()
    }
}

/// One of the buffers that activations share over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationBuffer {
    /// Number of elements, 4 bytes each.
    pub len: usize,
    /// `F32` or `U32`.
    pub dtype: DType,
}

/// The passes over a batch that a program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// Forward, backward and update.
    Train,
    /// Forward and backward; the gradients are added up (gradient accumulation).
    Accumulate,
    /// Forward and metrics only.
    Eval,
}

/// Everything an executor needs: the plans and the memory they share.
#[derive(Clone, Debug)]
pub struct Program {
    /// What one sample is.
    pub spec: SampleSpec,
    /// How a batch lies in a slot.
    pub slot: SlotLayout,
    /// Elements of each arena that is used (`f32`).
    pub arenas: BTreeMap<Arena, usize>,
    /// The shared activation buffers.
    pub activations: Vec<ActivationBuffer>,
    /// Parameters in [`Arena::Params`], in the order in which the model made them.
    pub params: Vec<Variable>,
    /// States in [`Arena::State`].
    pub states: Vec<Variable>,
    /// Contents of [`Arena::Consts`].
    pub consts: Vec<f32>,
    /// The plan of each pass.
    pub plans: BTreeMap<Pass, Plan>,
    /// The model's output in the plan of [`Pass::Eval`].
    pub output: TensorId,
    /// Where [`Op::OptimizerControl`](super::op::Op::OptimizerControl) keeps its 8 words in [`Arena::State`]
    /// (in elements), where the program trains.
    pub control_offset: Option<usize>,
}

impl Program {
    /// The arenas that a checkpoint must hold to go on bit for bit.
    pub fn persistent_arenas(&self) -> impl Iterator<Item = Arena> + '_ {
        [Arena::Params, Arena::First, Arena::Second, Arena::State]
            .into_iter()
            .filter(|arena| self.arenas.get(arena).is_some_and(|&len| len > 0))
    }

    /// Bytes of device memory that arenas, activations and one batch take.
    pub fn device_bytes(&self) -> usize {
        let arenas: usize = self.arenas.values().sum();
        let activations: usize = self.activations.iter().map(|a| a.len).sum();
        4 * (arenas + activations) + self.slot.slot_bytes
    }
}
