//! The device's own clock: when passes began and ended.

use std::sync::Arc;
use std::time::Duration;

use super::objects::Objects;
use super::readback::{Arrivals, Read, map_on_submit};
use crate::error::Result;

/// Bytes of the two timestamps of a pass.
pub(super) const TIMESTAMP_BYTES: usize = 16;

/// The device's clock at the beginning and end of each pass.
#[derive(Debug)]
pub(super) struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Nanoseconds of a tick.
    period_ns: f32,
}

impl Timestamps {
    /// Two timestamps for every slot, where the device has them.
    pub(super) fn new(slots: usize, objects: &mut Objects) -> Result<Option<Self>> {
        let context = Arc::clone(&objects.context);
        if !context.has_timestamps() {
            return Ok(None);
        }
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = objects.buffer("timestamps", TIMESTAMP_BYTES, usage, false)?;
        let queries = query_set(slots, objects);
        Ok(Some(Self { queries, resolved, period_ns: context.queue.get_timestamp_period() }))
    }

    /// Where the pass over `slot` writes its two.
    pub(super) fn writes(&self, slot: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        writes(&self.queries, slot)
    }

    /// Records the copy of a slot's two timestamps to `offset` of `read`.
    pub(super) fn resolve(
        &self,
        slot: usize,
        encoder: &mut wgpu::CommandEncoder,
        read: &Read,
        offset: u64,
    ) {
        let first = 2 * slot as u32;
        encoder.resolve_query_set(&self.queries, first..first + 2, &self.resolved, 0);
        read.copy(encoder, (&self.resolved, 0), offset, TIMESTAMP_BYTES as u64);
    }

    /// The time between two timestamps as read back; none where the clock ran backwards.
    pub(super) fn elapsed(&self, words: &[u32]) -> Option<Duration> {
        self.between(tick(words, 0), tick(words, 2))
    }

    /// The time from one tick to another; none where the clock ran backwards.
    pub(super) fn between(&self, from: u64, to: u64) -> Option<Duration> {
        let ticks = to.checked_sub(from)?;
        Some(Duration::from_nanos((ticks as f64 * f64::from(self.period_ns)) as u64))
    }
}

/// Pairs of timestamps that come back together, in a buffer of their own.
#[derive(Debug)]
pub(super) struct Pairs {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    mapped: wgpu::Buffer,
}

impl Pairs {
    /// So many pairs, on a device that has timestamps.
    pub(super) fn new(count: usize, objects: &mut Objects) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        let bytes = TIMESTAMP_BYTES * count;
        let mut buffer = |usage| objects.buffer("timestamps", bytes, usage, false);
        let resolved = buffer(Usage::QUERY_RESOLVE | Usage::COPY_SRC)?;
        let mapped = buffer(Usage::MAP_READ | Usage::COPY_DST)?;
        Ok(Self { queries: query_set(count, objects), resolved, mapped })
    }

    /// Where a pass writes pair `at`.
    pub(super) fn writes(&self, at: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        writes(&self.queries, at)
    }

    /// Records the way of the first `count` pairs to the host.
    pub(super) fn resolve(
        &self,
        count: usize,
        encoder: &mut wgpu::CommandEncoder,
        arrivals: &Arc<Arrivals>,
    ) {
        let bytes = (TIMESTAMP_BYTES * count) as u64;
        encoder.resolve_query_set(&self.queries, 0..2 * count as u32, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.mapped, 0, Some(bytes));
        map_on_submit(encoder, &self.mapped, wgpu::MapMode::Read, arrivals);
    }

    /// The pairs that have arrived, in ticks.
    pub(super) fn read(&self) -> Result<Vec<[u64; 2]>, wgpu::MapRangeError> {
        let pairs = bytemuck::pod_collect_to_vec(&self.mapped.get_mapped_range(..)?);
        self.mapped.unmap();
        Ok(pairs)
    }
}

/// Room for so many pairs.
fn query_set(pairs: usize, objects: &mut Objects) -> wgpu::QuerySet {
    objects.created += 1;
    objects.context.device.create_query_set(&wgpu::QuerySetDescriptor {
        label: Some("timestamps"),
        ty: wgpu::QueryType::Timestamp,
        count: 2 * pairs as u32,
    })
}

/// Has a pass write pair `at`.
fn writes(queries: &wgpu::QuerySet, at: usize) -> wgpu::ComputePassTimestampWrites<'_> {
    let first = 2 * at as u32;
    wgpu::ComputePassTimestampWrites {
        query_set: queries,
        beginning_of_pass_write_index: Some(first),
        end_of_pass_write_index: Some(first + 1),
    }
}

/// The tick whose two words begin at `at`.
pub(super) fn tick(words: &[u32], at: usize) -> u64 {
    u64::from(words[at]) | u64::from(words[at + 1]) << 32
}
