//! The pipeline: the threads, their names, the channels between them, and how they end. The only file that
//! spawns and joins.
//!
//! ```text
//! prepare ──full──▶ device          both channels hold at most as many slots as the ring has
//!    ▲                │
//!    └─────empty──────┘
//! ```
//!
//! Stopping is dropping an end of a channel: the other side sees it at its next send or receive. An error
//! travels the same way as a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::batch::{Slot, SlotLayout};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::graph::plan::Pass;
use crate::prepare::{self, StageCounters};
use crate::source::Source;
use crate::transform::Transform;

/// Which part of a data set a batch is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The part that is trained on.
    Train,
    /// The part held out for validation.
    Validation,
}

/// One pass over one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Which pass.
    pub pass: Pass,
    /// Which part of the data.
    pub split: Split,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Optimizer steps completed before this pass.
    pub step: u64,
    /// Place within an accumulated step, from 0.
    pub micro_step: u32,
    /// Share of this batch's samples in its step.
    pub weight: f32,
    /// The samples, in order.
    pub indices: Vec<usize>,
    /// Whether it is the last of its epoch's training, or the last of a validation.
    pub last: bool,
}

/// A batch ready for the device.
#[derive(Debug)]
pub struct Filled {
    /// What to do with it.
    pub work: Work,
    /// Its bytes.
    pub slot: Slot,
}

/// What the prepare thread works with.
pub struct Preparation {
    /// The part that is trained on.
    pub train: Arc<dyn Source>,
    /// The part held out.
    pub validation: Option<Arc<dyn Source>>,
    /// Applied to training samples, in order.
    pub transforms: Vec<Box<dyn Transform>>,
    /// Applied to samples held out, in order.
    pub held_out: Vec<Box<dyn Transform>>,
    /// How a batch lies in a slot.
    pub layout: SlotLayout,
    /// The seed of the run.
    pub seed: u64,
    /// Number of workers.
    pub workers: usize,
}

/// Wall times of the prepare thread, in nanoseconds, and its workers' counters.
#[derive(Debug, Default)]
pub struct PrepareTimes {
    /// Filling slots.
    pub busy_ns: AtomicU64,
    /// Waiting for an empty slot.
    pub wait_ns: AtomicU64,
    /// What the workers did, summed over threads.
    pub stages: StageCounters,
}

/// The ends of the channels that the device thread holds. Dropping them ends the prepare thread.
#[derive(Debug)]
pub struct DeviceEnds {
    /// Filled slots, in order; an error ends them.
    pub full: Receiver<Result<Filled>>,
    /// Where slots go when they can be filled again.
    pub empty: Sender<Slot>,
    /// Wall times of preparation.
    pub times: Arc<PrepareTimes>,
}

/// The running threads; dropping it waits until they have ended.
#[derive(Debug)]
pub struct Pipeline {
    threads: Vec<JoinHandle<()>>,
    /// What the prepare thread may be waiting for.
    sources: Sources,
}

/// The sources of a run, told when it ends.
struct Sources(Vec<Arc<dyn Source>>);

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|source| &source.info().name)).finish()
    }
}

impl Pipeline {
    /// Starts the `prepare` thread over `agenda` and the `device` thread with `device`, which gets the ends of
    /// the channels. All `slots` start out empty.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        slots: Vec<Slot>,
        agenda: impl Iterator<Item = Work> + Send + 'static,
        preparation: Preparation,
        device: impl FnOnce(DeviceEnds) + Send + 'static,
    ) -> Result<Self> {
        // Bound: the ring itself. No more batches can exist than slots, so no send ever waits on these.
        let (empty_in, empty_out) = bounded(slots.len());
        let (full_in, full_out) = bounded(slots.len() + 1);
        for slot in slots {
            empty_in.send(slot).expect("room for every slot");
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(preparation.workers)
            .thread_name(|i| format!("prepare-{i}"))
            .build()
            .map_err(|e| thread_error("prepare workers").caused_by(e))?;
        let times = Arc::new(PrepareTimes::default());
        let ends = DeviceEnds { full: full_out, empty: empty_in, times: times.clone() };
        let sources = [Some(&preparation.train), preparation.validation.as_ref()];
        let sources = Sources(sources.into_iter().flatten().cloned().collect());
        let mut pipeline = Self { threads: Vec::with_capacity(2), sources };
        pipeline.spawn("prepare", move || {
            prepare_loop(agenda, &preparation, &pool, &empty_out, &full_in, &times);
        })?;
        pipeline.spawn("device", move || device(ends))?;
        Ok(pipeline)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let builder = std::thread::Builder::new().name(name.into());
        self.threads.push(builder.spawn(body).map_err(|e| thread_error(name).caused_by(e))?);
        Ok(())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.sources.0.iter().for_each(|source| source.close());
        for thread in self.threads.drain(..) {
            // A panic was already turned into an error for whoever waited; nothing is left to tell.
            let _ = thread.join();
        }
    }
}

fn thread_error(name: &str) -> Error {
    Error::new(Stage::Device, ErrorKind::Device, name, "the thread could not be started")
}

/// Takes an empty slot, fills it inside the pool, hands it on outside of it; workers never block.
fn prepare_loop(
    agenda: impl Iterator<Item = Work>,
    preparation: &Preparation,
    pool: &rayon::ThreadPool,
    empty: &Receiver<Slot>,
    full: &Sender<Result<Filled>>,
    times: &PrepareTimes,
) {
    for work in agenda {
        let waiting = Instant::now();
        let Ok(mut slot) = empty.recv() else { return };
        let began = Instant::now();
        times.wait_ns.fetch_add((began - waiting).as_nanos() as u64, Ordering::Relaxed);
        // Waiting for a stream's samples is done here, outside of the pool.
        let result = source_of(&work, preparation).0.prefetch(&work.indices);
        let result = result
            .and_then(|()| pool.install(|| fill(&mut slot, &work, preparation, &times.stages)));
        times.busy_ns.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        let failed = result.is_err();
        if full.send(result.map(|()| Filled { work, slot })).is_err() || failed {
            return;
        }
    }
}

fn fill(
    slot: &mut Slot,
    work: &Work,
    preparation: &Preparation,
    stages: &StageCounters,
) -> Result<()> {
    let (source, transforms) = source_of(work, preparation);
    // What is held out is the same in every epoch, and in a later evaluation, even where something is drawn.
    let epoch = if work.split == Split::Validation { 0 } else { work.epoch };
    let key = prepare::Keys { seed: preparation.seed, epoch };
    let layout = match work.pass {
        // Evaluation sees images as they come, so the workers do all there is to do.
        Pass::Eval => preparation.layout.clone().without_framings(),
        Pass::Train | Pass::Accumulate => preparation.layout.clone(),
    };
    prepare::fill(slot, &layout, source, transforms, &work.indices, key, stages)
}

/// Where the samples of a batch are from, and what is done to them.
fn source_of<'a>(
    work: &Work,
    preparation: &'a Preparation,
) -> (&'a dyn Source, &'a [Box<dyn Transform>]) {
    match (work.split, &preparation.validation) {
        (Split::Validation, Some(source)) => (&**source, &preparation.held_out),
        _ => (&*preparation.train, &preparation.transforms),
    }
}
