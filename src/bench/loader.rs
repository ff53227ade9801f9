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
        let mut timing = Timing::new(Instant::now(), warm_up.min(most / 4), seconds, most);
        while !timing.look(Instant::now(), self.counts.load(Relaxed)) && self.result.is_empty() {
            if timing.latest.at.elapsed() > PATIENCE {
                let message = format!("no batch came within {} s", PATIENCE.as_secs());
                return Err(Error::device("preparation", message));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        self.end().map(|()| timing.batch_s())
    }

    /// Stops it.
    pub fn end(self) -> Result<()> {
        self.stop.store(true, Relaxed);
        self.result.recv().unwrap_or(Ok(()))
    }
}

/// How many batches there were once the latest of them had come.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    at: Instant,
    count: u64,
}

/// Times batches from one arrival to another: a batch that is not done when the time is over counts for nothing.
struct Timing {
    warm_up: u64,
    seconds: f64,
    most: u64,
    /// What is timed begins here.
    first: Option<Arrival>,
    latest: Arrival,
}

impl Timing {
    fn new(now: Instant, warm_up: u64, seconds: f64, most: u64) -> Self {
        Self { warm_up, seconds, most, first: None, latest: Arrival { at: now, count: 0 } }
    }

    /// Takes note of how many batches there are now; whether that is enough.
    fn look(&mut self, now: Instant, count: u64) -> bool {
        if count > self.latest.count {
            self.latest = Arrival { at: now, count };
        }
        if self.first.is_none() && self.latest.count >= self.warm_up {
            self.first = Some(self.latest);
        }
        let Some(first) = self.first else { return false };
        let timed = self.latest.count - first.count;
        let is_over = (now - first.at).as_secs_f64() > self.seconds && timed >= 3;
        is_over || (timed > 0 && self.latest.count + 1 >= self.most)
    }

    fn batch_s(&self) -> f64 {
        let first = self.first.unwrap_or(self.latest);
        let timed = (self.latest.count - first.count).max(1);
        (self.latest.at - first.at).as_secs_f64() / timed as f64
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds a batch as found where each takes a second, by a look at their number every tenth of one.
    fn found(warm_up: u64, seconds: f64, most: u64) -> f64 {
        let began = Instant::now();
        let mut timing = Timing::new(began, warm_up, seconds, most);
        let look = |tenth: u64| timing.look(began + Duration::from_millis(100 * tenth), tenth / 10);
        assert!((0..1000).any(look), "enough at some time");
        timing.batch_s()
    }

    #[test]
    fn a_batch_that_is_not_done_lengthens_no_other() {
        // The time is over in the middle of a batch, and just before the end of one.
        for seconds in [3.5, 3.85, 10.25] {
            assert_eq!(found(2, seconds, u64::MAX), 1.0, "{seconds} s");
        }
        // At least three, however little time there is; no more than there are; one where there is no other.
        for (seconds, most) in [(0.1, u64::MAX), (100.0, 7), (100.0, 1)] {
            assert_eq!(found(0, seconds, most), 1.0, "{seconds} s, {most} in all");
        }
    }
}
