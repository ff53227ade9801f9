//! How long the device is busy with a pass, by its own clock.

use std::sync::Arc;
use std::time::Duration;

use super::objects::Objects;
use super::readback::Read;
use crate::error::Result;

/// Bytes of the timestamps of a pass.
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
        let queries = context.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("timestamps"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * slots as u32,
        });
        objects.created += 1;
        Ok(Some(Self { queries, resolved, period_ns: context.queue.get_timestamp_period() }))
    }

    /// Where the pass over `slot` writes its two.
    pub(super) fn writes(&self, slot: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = 2 * slot as u32;
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
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

/// The tick whose two words begin at `at`.
pub(super) fn tick(words: &[u32], at: usize) -> u64 {
    u64::from(words[at]) | u64::from(words[at + 1]) << 32
}
