//! The memory of a program on the host, and its operations with every binding resolved to a range of it.

use std::array;
use std::collections::BTreeMap;
use std::mem::take;
use std::ops::Range;

use rayon::prelude::*;

use super::call::{Call, Input, MAX_BINDINGS, Output, Scratch, ScratchLen};
use super::parallel::CHUNK;
use super::real::Real;
use super::{run, scratch_len};
use crate::batch::{DType, StepHeader, TargetSpec};
use crate::error::{Error, Result};
use crate::graph::op::Op;
use crate::graph::plan::{Location, Place, Plan, Program};
use crate::graph::{Arena, Node, Role, Tensor, TensorId};

/// A buffer that is allocated once.
#[derive(Debug)]
enum Buffer<T> {
    Real(Vec<T>),
    Index(Vec<u32>),
}

impl<T> Default for Buffer<T> {
    /// An empty one, which stands in while a twin writes the real one.
    fn default() -> Self {
        Buffer::Real(Vec::new())
    }
}

/// A stretch of a buffer, in elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    buffer: usize,
    range: Range<usize>,
}

/// What a batch brings, where it lies in the slot, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SlotPart {
    target: bool,
    range: Range<usize>,
    dtype: DType,
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The header, which every call has at hand.
    Header,
    Slot(SlotPart),
    Buffer(Span),
}

/// What an operation writes into one buffer: stretches in ascending order, each with its binding.
#[derive(Clone, Debug)]
struct Target {
    buffer: usize,
    stretches: Vec<(Range<usize>, usize)>,
}

/// An operation with every binding resolved.
#[derive(Clone, Debug)]
pub struct Step {
    op: Op,
    inputs: Vec<Source>,
    targets: Vec<Target>,
    input_shapes: Vec<Vec<usize>>,
    output_shapes: Vec<Vec<usize>>,
    /// Outputs of 16 bits, whose numbers are rounded after the operation.
    halves: Vec<usize>,
}

/// All buffers of a program: arenas, activations, and what a slot is converted into.
#[derive(Debug)]
pub struct Memory<T> {
    buffers: Vec<Buffer<T>>,
    arenas: BTreeMap<Arena, usize>,
    /// First of the activation buffers.
    activations: usize,
    staged_input: Vec<T>,
    staged_target: Vec<T>,
}

impl<T: Real> Memory<T> {
    /// Allocates all memory of a program; constants are in place, everything else is 0.
    pub fn new(program: &Program) -> Self {
        let mut buffers = Vec::new();
        let mut arenas = BTreeMap::new();
        for (&arena, &len) in &program.arenas {
            arenas.insert(arena, buffers.len());
            buffers.push(Buffer::Real(vec![T::ZERO; numbers_a_word(program, arena) * len]));
        }
        let activations = buffers.len();
        buffers.extend(program.activations.iter().map(|buffer| match buffer.dtype {
            DType::U32 => Buffer::Index(vec![0; buffer.len]),
            DType::F32 | DType::F16 | DType::U8 | DType::U16 => {
                Buffer::Real(vec![T::ZERO; buffer.len])
            }
        }));
        let staged = |bytes: usize| T::staging(program.slot.batch_size * bytes / 4);
        let mut memory = Self {
            buffers,
            arenas,
            activations,
            staged_input: staged(program.slot.input_bytes),
            staged_target: staged(program.slot.target_bytes),
        };
        if let Some(consts) = memory.arena_mut(Arena::Consts) {
            consts.iter_mut().zip(&program.consts).for_each(|(to, &x)| *to = T::of(f64::from(x)));
        }
        memory
    }

    /// Number of buffers.
    pub fn buffers(&self) -> usize {
        self.buffers.len()
    }

    /// Their size in bytes.
    pub fn bytes(&self) -> usize {
        let staged = self.staged_input.len() + self.staged_target.len();
        let bytes = self.buffers.iter().map(|buffer| match buffer {
            Buffer::Real(buffer) => size_of_val(&buffer[..]),
            Buffer::Index(buffer) => size_of_val(&buffer[..]),
        });
        bytes.sum::<usize>() + staged * size_of::<T>()
    }

    /// The contents of an arena, where the program has it.
    pub fn arena(&self, arena: Arena) -> Option<&[T]> {
        match &self.buffers[*self.arenas.get(&arena)?] {
            Buffer::Real(buffer) => Some(buffer),
            Buffer::Index(_) => None,
        }
    }

    /// As [`Memory::arena`], to be changed.
    pub fn arena_mut(&mut self, arena: Arena) -> Option<&mut [T]> {
        match &mut self.buffers[*self.arenas.get(&arena)?] {
            Buffer::Real(buffer) => Some(buffer),
            Buffer::Index(_) => None,
        }
    }

    /// Copies an arena that the program has into another one of the same length.
    pub fn copy(&mut self, from: Arena, to: Arena) {
        let both = [self.arenas[&from], self.arenas[&to]];
        if let Ok([Buffer::Real(from), Buffer::Real(to)]) = self.buffers.get_disjoint_mut(both) {
            to.copy_from_slice(from);
        }
    }

    /// The numbers in a stretch.
    pub fn numbers(&self, span: &Span) -> &[T] {
        match &self.buffers[span.buffer] {
            Buffer::Real(buffer) => &buffer[span.range.clone()],
            Buffer::Index(_) => &[],
        }
    }

    /// Where a tensor lies.
    ///
    /// # Errors
    /// When it lies in the slot or outside all buffers.
    pub fn span(&self, plan: &Plan, id: TensorId) -> Result<Span> {
        let (tensor, Location { place, offset_bytes }) = (plan.tensor(id), plan.location(id));
        let buffer = match place {
            Place::Slot => None,
            Place::Arena(arena) => self.arenas.get(&arena).copied(),
            Place::Activation(i) => Some(self.activations + i),
        };
        // The twins hold 16-bit numbers in more, one after another all the same.
        let offset = offset_bytes / tensor.dtype.bytes();
        let range = offset..offset + tensor.len();
        let len = buffer.and_then(|i| self.buffers.get(i)).map_or(0, |buffer| match buffer {
            Buffer::Real(buffer) => buffer.len(),
            Buffer::Index(buffer) => buffer.len(),
        });
        match buffer {
            Some(buffer) if range.end <= len => Ok(Span { buffer, range }),
            _ => {
                let message = format!("elements {range:?} of {place:?} do not exist, it has {len}");
                Err(Error::graph(&tensor.name, message))
            }
        }
    }

    fn source(&self, plan: &Plan, id: TensorId) -> Result<Source> {
        let tensor = plan.tensor(id);
        let part = |target| {
            let offset = plan.location(id).offset_bytes;
            let range = offset..offset + tensor.len() * tensor.dtype.bytes();
            Source::Slot(SlotPart { target, range, dtype: tensor.dtype })
        };
        Ok(match plan.tensor(plan.root(id)).role {
            Role::Header => Source::Header,
            Role::Input | Role::Framing => part(false),
            Role::Target | Role::Beside(_) => part(true),
            _ => Source::Buffer(self.span(plan, id)?),
        })
    }

    /// Resolves an operation.
    ///
    /// # Errors
    /// When it binds too much, or reads a buffer that it also writes.
    pub fn step(&self, plan: &Plan, node: &Node) -> Result<Step> {
        let refuse = |message: &str| {
            let item = format!("{} {}", node.scope, node.op.name());
            Err(Error::graph(item.trim_start(), message))
        };
        if node.inputs.len() > MAX_BINDINGS || node.outputs.len() > MAX_BINDINGS {
            return refuse("binds more tensors than the twins take");
        }
        let inputs: Vec<Source> =
            node.inputs.iter().map(|&x| self.source(plan, x)).collect::<Result<_>>()?;
        let mut targets = BTreeMap::<usize, Vec<(Range<usize>, usize)>>::new();
        for (binding, &y) in node.outputs.iter().enumerate() {
            let span = self.span(plan, y)?;
            targets.entry(span.buffer).or_default().push((span.range, binding));
        }
        for stretches in targets.values_mut() {
            stretches.sort_by_key(|(range, _)| range.start);
            if stretches.windows(2).any(|pair| pair[0].0.end > pair[1].0.start) {
                return refuse("writes two tensors that overlap");
            }
        }
        let written = |source: &Source| matches!(source, Source::Buffer(span) if targets.contains_key(&span.buffer));
        if inputs.iter().any(written) {
            return refuse("reads a buffer that it also writes");
        }
        let shapes = |ids: &[TensorId]| ids.iter().map(|&x| plan.tensor(x).shape.clone()).collect();
        Ok(Step {
            op: node.op,
            inputs,
            targets: targets
                .into_iter()
                .map(|(buffer, stretches)| Target { buffer, stretches })
                .collect(),
            input_shapes: shapes(&node.inputs),
            output_shapes: shapes(&node.outputs),
            halves: (0..node.outputs.len())
                .filter(|&i| plan.tensor(node.outputs[i]).dtype == DType::F16)
                .collect(),
        })
    }

    /// Converts what the slot holds as `f32`, where numbers are not read in place.
    pub fn stage(&mut self, program: &Program, slot: &[u8]) {
        let layout = &program.slot;
        if program.spec.input_dtype == DType::F32 {
            let end = layout.input_offset + layout.batch_size * layout.input_bytes;
            T::stage(&slot[layout.input_offset..end], &mut self.staged_input);
        }
        if matches!(program.spec.target, TargetSpec::Values { .. }) {
            let end = layout.target_offset + layout.batch_size * layout.target_bytes;
            T::stage(&slot[layout.target_offset..end], &mut self.staged_target);
        }
    }

    /// Runs an operation.
    pub fn run(&mut self, step: &Step, slot: &[u8], header: &StepHeader, scratch: &Scratch<T>) {
        // What is written is taken out, so that the rest can be read meanwhile.
        let mut taken: [Buffer<T>; MAX_BINDINGS] = Default::default();
        for (taken, target) in taken.iter_mut().zip(&step.targets) {
            *taken = take(&mut self.buffers[target.buffer]);
        }
        let mut outputs: [Output<'_, T>; MAX_BINDINGS] = Default::default();
        for (taken, target) in taken.iter_mut().zip(&step.targets) {
            divide(taken, &target.stretches, &mut outputs);
        }
        run(Call {
            op: &step.op,
            inputs: array::from_fn(|i| self.input(step.inputs.get(i), slot)),
            outputs,
            input_shapes: &step.input_shapes,
            output_shapes: &step.output_shapes,
            header,
            scratch,
            half_outputs: &step.halves,
        });
        // Of a cache only what is new needs to be rounded, which its twin does.
        let rounds = !matches!(step.op, Op::CachedAttention { .. });
        for (taken, target) in taken.iter_mut().zip(&step.targets) {
            if rounds {
                round_halves(taken, target, &step.halves);
            }
            self.buffers[target.buffer] = take(taken);
        }
    }

    fn input<'m>(&'m self, source: Option<&Source>, slot: &'m [u8]) -> Input<'m, T> {
        match source {
            None | Some(Source::Header) => Input::None,
            Some(Source::Slot(part)) => {
                let bytes = &slot[part.range.clone()];
                let staged = if part.target { &self.staged_target } else { &self.staged_input };
                match part.dtype {
                    DType::U8 => Input::Bytes(bytes),
                    DType::U32 => Input::Index(bytemuck::cast_slice(bytes)),
                    DType::F32 => Input::Real(T::staged(bytes, staged)),
                    DType::U16 => Input::Shorts(bytemuck::cast_slice(bytes)),
                    DType::F16 => unreachable!("samples are bytes, integers or 32-bit floats"),
                }
            }
            Some(Source::Buffer(Span { buffer, range })) => match &self.buffers[*buffer] {
                Buffer::Real(buffer) => Input::Real(&buffer[range.clone()]),
                Buffer::Index(buffer) => Input::Index(&buffer[range.clone()]),
            },
        }
    }
}

/// How many numbers of an arena a word is: two where they have 16 bits, which the twins hold in more.
fn numbers_a_word(program: &Program, arena: Arena) -> usize {
    let tensors = program.plans.values().flat_map(|plan| plan.tensors.iter().zip(&plan.locations));
    let is_half = |(tensor, location): (&Tensor, &Location)| {
        tensor.dtype == DType::F16 && location.place == Place::Arena(arena)
    };
    if tensors.into_iter().any(is_half) { 2 } else { 1 }
}

/// Rounds what was written into tensors of 16 bits, which the twins hold in more: so they compute what a
/// device computes that stores it so.
fn round_halves<T: Real>(buffer: &mut Buffer<T>, target: &Target, halves: &[usize]) {
    let Buffer::Real(buffer) = buffer else { return };
    for (range, binding) in &target.stretches {
        if halves.contains(binding) {
            buffer[range.clone()].par_chunks_mut(CHUNK).for_each(T::round_to_half);
        }
    }
}

/// Divides a buffer into the stretches that are bound.
fn divide<'m, T>(
    buffer: &'m mut Buffer<T>,
    stretches: &[(Range<usize>, usize)],
    outputs: &mut [Output<'m, T>; MAX_BINDINGS],
) {
    match buffer {
        Buffer::Real(buffer) => {
            each_stretch(buffer, stretches, |binding, y| outputs[binding] = Output::Real(y));
        }
        Buffer::Index(buffer) => {
            each_stretch(buffer, stretches, |binding, y| outputs[binding] = Output::Index(y));
        }
    }
}

fn each_stretch<'m, E>(
    mut rest: &'m mut [E],
    stretches: &[(Range<usize>, usize)],
    mut bind: impl FnMut(usize, &'m mut [E]),
) {
    let mut at = 0;
    for (range, binding) in stretches {
        let (_, tail) = take(&mut rest).split_at_mut(range.start - at);
        let (stretch, tail) = tail.split_at_mut(range.len());
        bind(*binding, stretch);
        (rest, at) = (tail, range.end);
    }
}

impl Step {
    /// The working memory it needs.
    pub fn scratch_len(&self) -> ScratchLen {
        scratch_len(&self.op, &self.input_shapes, &self.output_shapes)
    }
}
