//! Several batches being filled at once. A worker takes the next samples of the earliest batch that has some left,
//! so that none is idle at the tail of a batch. A batch is finished when its last sample is, in any order, and
//! leaves in its turn.
//!
//! A worker never waits for another one here, except for as long as that one looks at the list of batches. A task of
//! the pool is one chunk of samples and then starts the next: a source that itself uses the pool may have such a task
//! run inside of its own, which then comes back soon.

use std::collections::{BTreeMap, VecDeque};

use crossbeam_channel::Sender;
use rayon::ScopeFifo;
use serde_json::json;
use tracing::trace_span;

use crate::batch::{SharedSlot, Slot};
use crate::clock::Stamp;
use crate::error::{Error, Result};
use crate::gauges::Gauges;
use crate::pipeline::{Filled, Work};
use crate::prepare::{Filler, chunk_len, guarded};
use crate::quarantine::{Faults, Quarantine};
use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError, last};

/// The batches that are being filled, and those that wait for an earlier one.
pub(crate) struct Assembly<'a> {
    /// Workers there are. How many fill at the same time is told by `gauges`.
    workers: usize,
    full: &'a Sender<Result<Filled>>,
    gauges: &'a Gauges,
    /// Where batches are settled when they leave.
    quarantine: &'a Quarantine,
    /// The earliest batch that failed: no later one is needed, each earlier one is.
    failed: AtomicU64,
    desk: Mutex<Desk<'a>>,
}

/// What workers look at between two chunks.
struct Desk<'a> {
    /// Batches with samples left to take, in order.
    open: VecDeque<Arc<Batch<'a>>>,
    /// Tasks in the pool.
    working: usize,
    /// Finished batches by number. At most as many as the ring has slots.
    finished: BTreeMap<u64, Result<(Filled, Faults)>>,
    /// The batch that leaves next.
    next: u64,
    /// Nothing leaves any more: a batch has failed, or nobody takes them.
    over: bool,
    clock: Clock,
}

/// Tells the time in which batches are under way from that in which none is.
struct Clock {
    under_way: usize,
    since: Stamp,
}

/// A batch that is being filled.
struct Batch<'a> {
    number: u64,
    work: Work,
    slot: SharedSlot,
    filler: Filler<'a>,
    /// Samples that a worker takes at a time.
    chunk: usize,
    /// The first sample of the batch that failed, so far.
    failed_at: AtomicUsize,
    error: Mutex<Option<(usize, Error)>>,
}

impl<'a> Assembly<'a> {
    /// No batches yet; at most `workers` will fill at the same time, and finished batches go into `full`, which must have
    /// room for all batches that there can be at the same time and for an error.
    pub fn new(
        workers: usize,
        full: &'a Sender<Result<Filled>>,
        gauges: &'a Gauges,
        quarantine: &'a Quarantine,
    ) -> Self {
        let desk = Desk {
            open: VecDeque::new(),
            working: 0,
            finished: BTreeMap::new(),
            next: 0,
            over: false,
            clock: Clock { under_way: 0, since: Stamp::now() },
        };
        let failed = AtomicU64::new(u64::MAX);
        Self { workers, full, gauges, quarantine, failed, desk: Mutex::new(desk) }
    }

    /// Notes that the next batch has its slot; `false` once none is needed any more.
    pub fn begin(&self) -> bool {
        let mut desk = self.desk();
        desk.clock.count(1, self.gauges);
        !desk.over
    }

    /// Gives batch `number`, counted from 0, to the workers.
    pub fn add(
        &'a self,
        scope: &ScopeFifo<'a>,
        number: u64,
        work: Work,
        slot: Slot,
        filler: Filler<'a>,
    ) {
        if let Some(tracer) = self.gauges.tracing() {
            tracer.slot(slot.index, "empty", json!({}));
        }
        let samples = work.indices.len();
        let chunk = chunk_len(samples, self.workers);
        let slot = SharedSlot::new(slot, filler.layout(), samples);
        let failed_at = AtomicUsize::new(usize::MAX);
        let error = Mutex::new(None);
        let batch = Batch { number, work, slot, filler, chunk, failed_at, error };
        let mut desk = self.desk();
        desk.open.push_back(Arc::new(batch));
        // A batch without samples takes a worker too, who finds that it is finished.
        let starting =
            self.workers_now().saturating_sub(desk.working).min(samples.div_ceil(chunk).max(1));
        desk.working += starting;
        drop(desk);
        for _ in 0..starting {
            scope.spawn_fifo(|scope| self.work(scope));
        }
    }

    /// Workers that fill at the same time, at most.
    fn workers_now(&self) -> usize {
        self.gauges.at_work.workers.load(Ordering::Relaxed).clamp(1, self.workers)
    }

    /// Ends batch `number` by an error, which leaves in the batch's turn.
    pub fn fail(&self, number: u64, error: Error) {
        self.failed.fetch_min(number, Ordering::Relaxed);
        self.finish(&mut self.desk(), number, Err(error));
    }

    /// Nobody takes batches any more: what workers have in hand is the last that they do.
    pub fn stop(&self) {
        self.desk().over = true;
    }

    /// Fills one chunk, and starts the task that fills the next.
    fn work(&'a self, scope: &ScopeFifo<'a>) {
        let Some(batch) = self.earliest() else { return };
        while let Some((first, mut windows)) = batch.slot.take(batch.chunk) {
            let needed = batch.number <= self.failed.load(Ordering::Relaxed)
                && first < batch.failed_at.load(Ordering::Relaxed);
            if needed {
                let indices = &batch.work.indices[first..first + windows.len()];
                let traced = self.gauges.tracing().map(|tracer| (tracer, batch.number));
                let stages = &self.gauges.stages;
                let span = trace_span!("fill", batch = batch.number, samples = indices.len());
                let name = format_args!("batch {}", batch.number);
                let fill = || Ok(batch.filler.fill_chunk(&mut windows, indices, stages, traced));
                let filled = span.in_scope(|| guarded(name, fill));
                if let Err((at, error)) = filled.unwrap_or_else(|error| Err((0, error))) {
                    self.failed.fetch_min(batch.number, Ordering::Relaxed);
                    batch.fail(first + at, error);
                }
                break;
            }
        }
        // Two who let go at the same time do so one after the other.
        let desk = self.desk();
        let whole = last(batch);
        drop(desk);
        if let Some(batch) = whole {
            self.complete(batch);
        }
        scope.spawn_fifo(|scope| self.work(scope));
    }

    /// The earliest batch with samples left; without one, or if too many are at work, a task less is.
    fn earliest(&self) -> Option<Arc<Batch<'a>>> {
        loop {
            let mut desk = self.desk();
            if desk.working > self.workers_now() {
                desk.working -= 1;
                return None;
            }
            if desk.over {
                desk.open.clear();
            }
            let Some(batch) = desk.open.front() else {
                desk.working -= 1;
                return None;
            };
            if batch.slot.is_open() {
                return Some(batch.clone());
            }
            let whole = desk.open.pop_front().and_then(last);
            drop(desk);
            if let Some(batch) = whole {
                self.complete(batch);
            }
        }
    }

    /// Finishes a batch, for whoever let go of it as the last. The list of batches is free meanwhile: the gaps of
    /// samples that are left out are closed by reading others, which takes its time and may use the pool.
    fn complete(&self, batch: Batch<'a>) {
        if let Some(tracer) = self.gauges.tracing() {
            let args = json!({ "batch": batch.number, "step": batch.work.step });
            tracer.slot(batch.slot.index(), "fill", args);
        }
        let (number, result) = batch.into_result();
        self.finish(&mut self.desk(), number, result);
    }

    /// Enters a finished batch, and sends on all whose turn it is.
    fn finish(&self, desk: &mut Desk<'a>, number: u64, result: Result<(Filled, Faults)>) {
        desk.clock.count(-1, self.gauges);
        desk.finished.insert(number, result);
        while !desk.over
            && let Some(result) = desk.finished.remove(&desk.next)
        {
            desk.next += 1;
            let result = result.and_then(|(filled, faults)| {
                let name = format_args!("batch {number}");
                guarded(name, || self.quarantine.settle(&filled.work, faults))?;
                Ok(filled)
            });
            let failed = result.is_err();
            // There is room for every slot of the ring, so that this fails only where nobody listens.
            desk.over = self.full.try_send(result).is_err() || failed;
        }
        if desk.over {
            // Nobody will take the others: their slots are given up.
            desk.finished.clear();
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk<'a>> {
        // Nothing here is left half done by a panic.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch<'_> {
    /// Of several failed samples, the first in the batch is the one that is told of.
    fn fail(&self, at: usize, error: Error) {
        self.failed_at.fetch_min(at, Ordering::Relaxed);
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|(before, _)| at < *before) {
            *first = Some((at, error));
        }
    }

    fn into_result(self) -> (u64, Result<(Filled, Faults)>) {
        let Batch { number, mut work, slot, filler, error, .. } = self;
        if let Some((_, error)) = error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return (number, Err(error));
        }
        let mut slot = slot.into_slot();
        let name = format_args!("batch {number}");
        let finished = guarded(name, || filler.finish(&mut slot, &mut work.indices));
        let finished = finished.map(|faults| {
            work.bad = faults.missing();
            (Filled { work, slot }, faults)
        });
        (number, finished)
    }
}

impl Clock {
    /// Adds to the batches under way, and the time since the last change to what it was spent on.
    fn count(&mut self, change: isize, gauges: &Gauges) {
        let now = Stamp::now();
        let spent = if self.under_way > 0 { &gauges.busy } else { &gauges.idle };
        spent.add(self.since.until(now));
        self.since = now;
        self.under_way = self.under_way.saturating_add_signed(change);
    }
}
