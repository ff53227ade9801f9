//! Readback: small mapped buffers into which results are copied at the end of a pass and from which
//! they are read when the pass is done, several steps later. Nothing on the device waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::objects::Objects;
use crate::error::Result;
use crate::graph::Arena;

/// What is read back, each in buffers of its own size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Control, metrics and timestamps of a pass.
    Report,
    /// The model's output.
    Output,
    /// A whole arena.
    Arena(Arena),
}

/// A copy on its way to the host.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) kind: Kind,
    buffer: wgpu::Buffer,
}

/// Readback buffers that are free, by what they hold. Those that every run needs are made at its start, others when
/// they are first needed; all are kept.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: BTreeMap<Kind, Vec<wgpu::Buffer>>,
}

impl Pool {
    /// With free buffers of these kinds and sizes.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub(super) fn with(
        kinds: impl Iterator<Item = (Kind, usize)>,
        objects: &mut Objects,
    ) -> Result<Self> {
        let mut pool = Self::default();
        let taken = kinds.map(|(kind, bytes)| pool.take(kind, bytes, objects));
        for read in taken.collect::<Result<Vec<_>>>()? {
            pool.give_back(read);
        }
        Ok(pool)
    }

    /// A free buffer for `kind`, always of the same size for the same kind.
    ///
    /// # Errors
    /// When there is no memory for a new one.
    pub(super) fn take(&mut self, kind: Kind, bytes: usize, objects: &mut Objects) -> Result<Read> {
        if let Some(buffer) = self.free.entry(kind).or_default().pop() {
            return Ok(Read { kind, buffer });
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let buffer = objects.buffer("reading results back", bytes, usage, false)?;
        Ok(Read { kind, buffer })
    }

    /// Puts a buffer that is not mapped back.
    pub(super) fn give_back(&mut self, read: Read) {
        self.free.entry(read.kind).or_default().push(read.buffer);
    }

    /// Reads what arrived as elements of type `T`, and puts the buffer back.
    ///
    /// # Errors
    /// When the buffer is not mapped, because the device was lost.
    pub(super) fn finish<T: bytemuck::Pod>(
        &mut self,
        read: Read,
    ) -> Result<Vec<T>, wgpu::MapRangeError> {
        let values = bytemuck::pod_collect_to_vec(&read.buffer.get_mapped_range(..)?);
        read.buffer.unmap();
        self.give_back(read);
        Ok(values)
    }
}

impl Read {
    /// Copies `bytes` of `from` to `offset` of this buffer.
    pub(super) fn copy(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        (from, from_offset): (&wgpu::Buffer, u64),
        offset: u64,
        bytes: u64,
    ) {
        encoder.copy_buffer_to_buffer(from, from_offset, &self.buffer, offset, Some(bytes));
    }

    /// Asks for the buffer to be mapped once what `encoder` records is done.
    pub(super) fn map_on_submit(&self, encoder: &wgpu::CommandEncoder, arrivals: &Arc<Arrivals>) {
        map_on_submit(encoder, &self.buffer, wgpu::MapMode::Read, arrivals);
    }
}

/// Asks for a buffer to be mapped once what `encoder` records is done.
pub(super) fn map_on_submit(
    encoder: &wgpu::CommandEncoder,
    buffer: &wgpu::Buffer,
    mode: wgpu::MapMode,
    arrivals: &Arc<Arrivals>,
) {
    arrivals.expected.fetch_add(1, Ordering::Relaxed);
    let arrivals = Arc::clone(arrivals);
    encoder.map_buffer_on_submit(buffer, mode, .., move |result| arrivals.arrive(result.is_err()));
}

/// Counts the mappings that a submission is waited for.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    expected: AtomicUsize,
    failed: AtomicBool,
}

impl Arrivals {
    /// One that is waited for in vain.
    pub(super) fn never() -> Self {
        Self { expected: AtomicUsize::new(1), ..Self::default() }
    }

    fn arrive(&self, failed: bool) {
        if failed {
            self.failed.store(true, Ordering::Relaxed);
        }
        self.expected.fetch_sub(1, Ordering::Release);
    }

    /// Whether all have arrived, and if so whether they are usable.
    pub(super) fn state(&self) -> Arrived {
        match (self.expected.load(Ordering::Acquire), self.failed.load(Ordering::Relaxed)) {
            (0, false) => Arrived::All,
            (0, true) => Arrived::Failed,
            _ => Arrived::NotYet,
        }
    }
}

/// How far the mappings of a submission are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// Some are still missing.
    NotYet,
    /// All are there.
    All,
    /// All were answered, and some refused: the device is lost.
    Failed,
}
