//! One call of a twin: the memory it binds, the step's header, and scratch.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::real::Real;
use crate::batch::StepHeader;
use crate::graph::op::Op;

/// Memory that a twin reads.
#[derive(Clone, Copy, Debug, Default)]
pub enum Input<'m, T> {
    /// Nothing is bound.
    #[default]
    None,
    /// Numbers.
    Real(&'m [T]),
    /// `u32`: labels, indices.
    Index(&'m [u32]),
    /// `u8`: images.
    Bytes(&'m [u8]),
    /// `u16`: tokens.
    Shorts(&'m [u16]),
}

/// Rows of a table that are asked for.
#[derive(Clone, Copy, Debug)]
pub enum Ids<'m> {
    /// Of a byte each.
    U8(&'m [u8]),
    /// Of two bytes.
    U16(&'m [u16]),
    /// Of four bytes.
    U32(&'m [u32]),
}

impl Ids<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Ids::U8(ids) => ids.len(),
            Ids::U16(ids) => ids.len(),
            Ids::U32(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Id `i`.
    pub fn get(&self, i: usize) -> usize {
        match self {
            Ids::U8(ids) => ids[i].into(),
            Ids::U16(ids) => ids[i].into(),
            Ids::U32(ids) => ids[i] as usize,
        }
    }
}

/// Memory that a twin writes.
#[derive(Debug, Default)]
pub enum Output<'m, T> {
    /// Nothing is bound, or the twin took it.
    #[default]
    None,
    /// Numbers.
    Real(&'m mut [T]),
    /// `u32`: indices.
    Index(&'m mut [u32]),
}

/// The most tensors that an operation binds on one side.
pub const MAX_BINDINGS: usize = 9;

/// One operation with everything it works on.
pub struct Call<'c, 'm, T> {
    /// The operation.
    pub op: &'c Op,
    /// Memory of the inputs, in binding order.
    pub inputs: [Input<'m, T>; MAX_BINDINGS],
    /// Memory of the outputs, in binding order.
    pub outputs: [Output<'m, T>; MAX_BINDINGS],
    /// Shapes of the inputs.
    pub input_shapes: &'c [Vec<usize>],
    /// Shapes of the outputs.
    pub output_shapes: &'c [Vec<usize>],
    /// The step.
    pub header: &'c StepHeader,
    /// Working memory.
    pub scratch: &'c Scratch<T>,
    /// Outputs of 16 bits. What is written there is rounded afterwards, but for caches, whose twin rounds what it keeps.
    pub half_outputs: &'c [usize],
}

impl<'m, T: Real> Call<'_, 'm, T> {
    /// Input `i`, which is numbers.
    pub fn real(&self, i: usize) -> &'m [T] {
        match self.inputs[i] {
            Input::Real(x) => x,
            _ => panic!("input {i} of {} must be bound to numbers", self.op.name()),
        }
    }

    /// Input `i`, which is `u32`.
    pub fn indices(&self, i: usize) -> &'m [u32] {
        match self.inputs[i] {
            Input::Index(x) => x,
            _ => panic!("input {i} of {} must be bound to u32", self.op.name()),
        }
    }

    /// Input `i`, which is `u8`.
    pub fn bytes(&self, i: usize) -> &'m [u8] {
        match self.inputs[i] {
            Input::Bytes(x) => x,
            _ => panic!("input {i} of {} must be bound to u8", self.op.name()),
        }
    }

    /// Input `i`, which is ids of any width.
    pub fn ids(&self, i: usize) -> Ids<'m> {
        match self.inputs[i] {
            Input::Bytes(x) => Ids::U8(x),
            Input::Shorts(x) => Ids::U16(x),
            Input::Index(x) => Ids::U32(x),
            _ => panic!("input {i} of {} must be bound to whole numbers", self.op.name()),
        }
    }

    /// Takes output `i`, which is numbers.
    pub fn out(&mut self, i: usize) -> &'m mut [T] {
        match std::mem::take(&mut self.outputs[i]) {
            Output::Real(y) => y,
            _ => panic!("output {i} of {} must be bound to numbers", self.op.name()),
        }
    }

    /// Takes output `i`, which is `u32`.
    pub fn out_indices(&mut self, i: usize) -> &'m mut [u32] {
        match std::mem::take(&mut self.outputs[i]) {
            Output::Index(y) => y,
            _ => panic!("output {i} of {} must be bound to u32", self.op.name()),
        }
    }

    /// Shape of input `i`.
    pub fn shape(&self, i: usize) -> &[usize] {
        &self.input_shapes[i]
    }

    /// Shape of output `i`.
    pub fn out_shape(&self, i: usize) -> &[usize] {
        &self.output_shapes[i]
    }
}

/// How much working memory an operation needs, in elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScratchLen {
    /// For each thread.
    pub thread: usize,
    /// For all of them together.
    pub shared: usize,
}

impl ScratchLen {
    /// Enough for either.
    pub fn max(self, other: Self) -> Self {
        Self { thread: self.thread.max(other.thread), shared: self.shared.max(other.shared) }
    }
}

/// Working memory, allocated once. No twin holds a thread's part while it waits for other threads, so
/// that the locks never contend for longer than one task.
#[derive(Debug, Default)]
pub struct Scratch<T> {
    threads: Vec<Mutex<Vec<T>>>,
    shared: Mutex<Vec<T>>,
}

impl<T: Real> Scratch<T> {
    /// Working memory for `threads` threads.
    pub fn new(len: ScratchLen, threads: usize) -> Self {
        Self::filled(len, threads, T::ZERO)
    }

    /// As [`Scratch::new`], with something in it.
    pub fn filled(len: ScratchLen, threads: usize, content: T) -> Self {
        let thread = || Mutex::new(vec![content; len.thread]);
        // One more for a caller that is not in the pool.
        Self {
            threads: (0..=threads).map(|_| thread()).collect(),
            shared: Mutex::new(vec![content; len.shared]),
        }
    }

    /// The part of the calling thread. Its content is whatever was left there.
    pub fn thread(&self) -> MutexGuard<'_, Vec<T>> {
        let last = self.threads.len() - 1;
        let index = rayon::current_thread_index().map_or(last, |i| i % last.max(1));
        lock(&self.threads[index])
    }

    /// The part that threads share, to be divided among them.
    pub fn shared(&self) -> MutexGuard<'_, Vec<T>> {
        lock(&self.shared)
    }

    /// Number of buffers.
    pub fn buffers(&self) -> usize {
        self.threads.len() + 1
    }

    /// Their size in bytes.
    pub fn bytes(&self) -> usize {
        let threads: usize = self.threads.iter().map(|part| lock(part).len()).sum();
        (threads + self.shared().len()) * size_of::<T>()
    }
}

/// A panic in another task leaves only meaningless numbers behind, which scratch always is.
fn lock<T>(part: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
