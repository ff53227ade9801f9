//! Samples that are kept: what a source lent, copied once.

use crate::source::{Sample, Target};

/// The target of a sample that is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OwnedTarget {
    Class(u32),
    Values(Box<[f32]>),
    Tokens(Box<[u8]>),
}

impl OwnedTarget {
    pub fn of(target: Target<'_>) -> Self {
        match target {
            Target::Class(class) => Self::Class(class),
            Target::Values(values) => Self::Values(values.into()),
            Target::Tokens(tokens) => Self::Tokens(tokens.into()),
        }
    }

    pub fn lend(&self) -> Target<'_> {
        match self {
            Self::Class(class) => Target::Class(*class),
            Self::Values(values) => Target::Values(values),
            Self::Tokens(tokens) => Target::Tokens(tokens),
        }
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Class(_) => 0,
            Self::Values(values) => 4 * values.len(),
            Self::Tokens(tokens) => tokens.len(),
        }
    }
}

/// A sample that is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OwnedSample {
    input: Box<[u8]>,
    target: OwnedTarget,
}

/// What a sample takes beside its bytes: two headers of allocations, its entry and its part of a table.
const OVERHEAD_BYTES: usize = 96;

impl OwnedSample {
    pub fn of(sample: &Sample<'_>) -> Self {
        Self { input: sample.input.into(), target: OwnedTarget::of(sample.target) }
    }

    pub fn lend(&self) -> Sample<'_> {
        Sample { input: &self.input, target: self.target.lend() }
    }

    /// What keeping `sample` takes.
    pub fn bytes_of(sample: &Sample<'_>) -> u64 {
        let target = match sample.target {
            Target::Class(_) => 0,
            Target::Values(values) => 4 * values.len(),
            Target::Tokens(tokens) => tokens.len(),
        };
        (OVERHEAD_BYTES + sample.input.len() + target) as u64
    }
}
