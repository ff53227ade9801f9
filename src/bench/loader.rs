//! A preparation whose batches nobody computes on: they are counted, and their slots given back at once.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use crate::batch::{Slot, SlotLayout};
use crate::error::{Error, Result};
use crate::graph::plan::Pass;
use crate::pipeline::{DeviceEnds, Pipeline, Preparation, Split, Work};
use crate::quarantine::Quarantine;
use crate::sampler::Sampler;
use crate::source::Source;
use crate::transform::TransformConfig;

/// How long a single batch may take before preparation is given up.
const PATIENCE: Duration = Duration::from_secs(300);

/// The batches of some epochs, of which the last one says that it is.
pub(super) fn agenda(sampler: Sampler, epochs: Range<u64>) -> impl Iterator<Item = Work> {
    let steps = sampler.steps_per_epoch();
    let end = (epochs.end - 1, steps - 1);
    let batches = epochs.flat_map(move |epoch| (0..steps).map(move |batch| (epoch, batch)));
    batches.map(move |(epoch, batch)| Work {
        pass: Pass::Train,
        split: Split::Train,
        epoch,
        step: batch as u64,
        micro_step: 0,
        weight: 1.0,
        indices: sampler.indices(epoch, batch).collect(),
        last: (epoch, batch) == end,
        bad: 0,
    })
}

/// How batches of a source are prepared, with nothing read ahead, and every bad sample an error.
pub(super) fn preparation(
    source: &Arc<dyn Source>,
    transforms: &[TransformConfig],
    layout: SlotLayout,
    workers: usize,
) -> Preparation {
    Preparation {
        train: source.clone(),
        validation: None,
        transforms: transforms.iter().filter_map(TransformConfig::build).collect(),
        held_out: Vec::new(),
        layout,
        seed: 0,
        workers,
        find: Default::default(),
        quarantine: Arc::new(Quarantine::errors()),
        supply: Default::default(),
    }
}

/// Which batches are prepared: epoch after epoch, without end.
pub(super) struct Pipe {
    /// Their samples.
    pub sampler: Sampler,
    /// Slots of the ring.
    pub slots: usize,
}

/// A preparation under way.
pub(super) struct Loader {
    counts: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    result: Receiver<Result<()>>,
    /// Dropped last: joins the threads.
    _pipeline: Pipeline,
}

impl Loader {
    /// Starts its threads.
    pub fn start(pipe: Pipe, preparation: Preparation) -> Result<Self> {
        let Pipe { sampler, slots } = pipe;
        let bytes = preparation.layout.slot_bytes;
        let ring = (0..slots).map(|i| Slot::host(i, bytes)).collect();
        let agenda = agenda(sampler, 0..u64::MAX);
        let (told, result) = bounded(1);
        let (counts, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counting, stopping) = (counts.clone(), stop.clone());
        let pipeline = Pipeline::start(ring, agenda, preparation, move |ends| {
            // Whoever waits is gone only if this thread is, too.
            let _ = told.send(swallow(&ends, &counting, &stopping));
        })?;
        Ok(Self { counts, stop, result, _pipeline: pipeline })
    }

    /// Seconds a batch: of those that come within `seconds`, at least three, after `warm_up` others; `most` in all.
    pub fn batch_s(self, warm_up: u64, seconds: f64, most: u64) -> Result<f64> {
        let count = || self.counts.load(Relaxed);
        let warm_up = warm_up.min(most / 4);
        self.wait_until(|| count() >= warm_up)?;
        let (began, before) = (Instant::now(), count());
        self.wait_until(|| {
            let enough = began.elapsed().as_secs_f64() > seconds && count() >= before + 3;
            enough || count() + 1 >= most
        })?;
        let took = began.elapsed().as_secs_f64() / (count() - before).max(1) as f64;
        self.end().map(|()| took)
    }

    /// Stops it.
    pub fn end(self) -> Result<()> {
        self.stop.store(true, Relaxed);
        self.result.recv().unwrap_or(Ok(()))
    }

    /// Waits for `done`, or for an error, which [`end`](Self::end) then returns.
    fn wait_until(&self, done: impl Fn() -> bool) -> Result<()> {
        let (mut since, mut seen) = (Instant::now(), 0);
        while !done() && self.result.is_empty() {
            let now = self.counts.load(Relaxed);
            if now > seen {
                (since, seen) = (Instant::now(), now);
            }
            if since.elapsed() > PATIENCE {
                let message = format!("no batch came within {} s", PATIENCE.as_secs());
                return Err(Error::device("preparation", message));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

/// Takes filled slots and gives them back until told to stop.
fn swallow(ends: &DeviceEnds, counts: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    for filled in &ends.full {
        let filled = filled?;
        counts.fetch_add(1, Relaxed);
        if stop.load(Relaxed) {
            break;
        }
        // The prepare thread never ends by itself.
        let _ = ends.empty.send(filled.slot);
    }
    Ok(())
}
