//! The pipeline: the threads, their names, the channels between them, and how they end. The only file that
//! spawns and joins.
//!
//! ```text
//! prepare ──batches──▶ workers ──full──▶ device     each channel has room for the whole ring
//!    ▲                                     │
//!    └────────────────empty────────────────┘
//! ```
//!
//! Stopping is dropping an end of a channel: the other side sees it at its next send or receive. An error
//! travels the same way as a batch.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};

use crate::assembly::Assembly;
use crate::batch::{Slot, SlotLayout};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::graph::plan::Pass;
use crate::prepare::{Filler, Keys, StageCounters, panicked};
use crate::quarantine::Quarantine;
use crate::reader_tuner::{ReaderTuner, Seen};
use crate::source::supply::{READERS_MAX, Supply};
use crate::source::{ReadAhead, Source};
use crate::transform::Transform;

/// Which part of a data set a batch is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Split {
    /// The part that is trained on.
    #[serde(rename = "train")]
    Train,
    /// The part held out for validation.
    #[serde(rename = "val")]
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
    /// Bad samples that others stand in for, or that are left out of `indices`; known once it is prepared.
    pub bad: usize,
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
    /// What is done about bad samples, and which there are.
    pub quarantine: Arc<Quarantine>,
    /// How samples come to the workers.
    pub supply: Supply,
}

/// Wall times of preparation, in nanoseconds, and its workers' counters.
#[derive(Debug, Default)]
pub struct PrepareTimes {
    /// With batches being filled, one or several.
    pub busy_ns: AtomicU64,
    /// With none, for want of an empty slot.
    pub wait_ns: AtomicU64,
    /// What the workers did, summed over threads.
    pub stages: StageCounters,
    /// Readers at work now, where their number is found while the run goes on.
    pub readers: AtomicUsize,
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
        mut preparation: Preparation,
        device: impl FnOnce(DeviceEnds) + Send + 'static,
    ) -> Result<Self> {
        // Bound: the ring itself. No more batches can exist than slots, so no send ever waits on these.
        let (empty_in, empty_out) = bounded(slots.len());
        let (full_in, full_out) = bounded(slots.len() + 1);
        for slot in slots {
            empty_in.send(slot).expect("room for every slot");
        }
        preparation.workers = preparation.workers.max(1);
        let Preparation { train, validation, supply, .. } = &mut preparation;
        let supplied = supply.set_up(train.clone(), validation.clone())?;
        (*train, *validation) = (supplied.train, supplied.validation);
        let ahead = supplied.ahead;
        let times = Arc::new(PrepareTimes::default());
        let ends = DeviceEnds { full: full_out, empty: empty_in, times: times.clone() };
        let sources = [Some(&preparation.train), preparation.validation.as_ref()];
        let sources = Sources(sources.into_iter().flatten().cloned().collect());
        let threads = Vec::with_capacity(2 + preparation.workers);
        let mut pipeline = Self { threads, sources };
        let pool = pipeline.pool(preparation.workers)?;
        pipeline.spawn("prepare", move || {
            let foresight = Foresight::new(agenda, &preparation, ahead, times.clone());
            prepare_loop(foresight, &preparation, &pool, &empty_out, &full_in, &times);
        })?;
        pipeline.spawn("device", move || device(ends))?;
        Ok(pipeline)
    }

    /// The workers. They end when the pool is dropped, and are then joined like all other threads.
    fn pool(&mut self, workers: usize) -> Result<rayon::ThreadPool> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(workers)
            .spawn_handler(|worker| {
                let builder =
                    std::thread::Builder::new().name(format!("prepare-{}", worker.index()));
                self.threads.push(builder.spawn(|| worker.run())?);
                Ok(())
            })
            .build()
            .map_err(|e| thread_error("prepare workers").caused_by(e))
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

/// Starts a batch whenever a slot is empty, and leaves filling and handing on to the workers: this thread may wait,
/// for an empty slot or a stream's samples, and they never do. Returns once no worker has anything in hand.
fn prepare_loop(
    agenda: impl Iterator<Item = Work>,
    preparation: &Preparation,
    pool: &rayon::ThreadPool,
    empty: &Receiver<Slot>,
    full: &Sender<Result<Filled>>,
    times: &PrepareTimes,
) {
    let assembly = Assembly::new(preparation.workers, full, times, &preparation.quarantine);
    let assembly = &assembly;
    pool.in_place_scope_fifo(|scope| {
        for (number, work) in (0..).zip(agenda) {
            let Ok(slot) = empty.recv() else { return assembly.stop() };
            if !assembly.begin() {
                return;
            }
            // Waiting for a stream's samples is done here, outside of the pool.
            match prefetch(&work, preparation).and_then(|()| filler(&work, preparation)) {
                Ok(filler) => {
                    assembly.add(scope, number, work, slot, filler);
                }
                Err(error) => return assembly.fail(number, error),
            }
        }
    });
}

/// Batches read ahead at least, so that readers have something to do while a batch is filled.
const AHEAD_MIN: usize = 4;
/// What a number of readers is judged by: long enough for many reads of a slow disk.
const WINDOW: Duration = Duration::from_millis(250);

/// The agenda, of which the next batches are told to those who read ahead.
struct Foresight<'a, A> {
    agenda: A,
    next: VecDeque<Work>,
    /// Batches that are announced before their turn.
    depth: usize,
    preparation: &'a Preparation,
    ahead: Vec<Arc<ReadAhead>>,
    /// None: their number is given.
    tuner: Option<ReaderTuner>,
    times: Arc<PrepareTimes>,
    window: (Instant, usize, [f64; 2]),
    /// The first window after a change tells of both sides of it.
    skip: bool,
}

impl<'a, A: Iterator<Item = Work>> Foresight<'a, A> {
    fn new(
        agenda: A,
        preparation: &'a Preparation,
        ahead: Vec<Arc<ReadAhead>>,
        times: Arc<PrepareTimes>,
    ) -> Self {
        let readers = preparation.supply.readers;
        let samples = 2 * readers.unwrap_or(READERS_MAX);
        let enough = samples.div_ceil(preparation.layout.batch_size.max(1)).max(AHEAD_MIN);
        let depth = match ahead.is_empty() {
            true => 0,
            false => preparation.supply.prefetch.unwrap_or(enough),
        };
        let most = ahead.iter().map(|ahead| ahead.readers_max()).max().unwrap_or(0);
        let tuner = readers.is_none().then(|| ReaderTuner::new(preparation.workers, most));
        let window = (Instant::now(), 0, [0.0; 2]);
        let next = VecDeque::new();
        Self { agenda, next, depth, preparation, ahead, tuner, times, window, skip: true }
    }

    /// Looks at how the readers do, and changes their number.
    fn tune(&mut self, samples: usize) {
        let Some(tuner) = &mut self.tuner else { return };
        let (began, seen, [read_s, all_s]) = &mut self.window;
        *seen += samples;
        let elapsed = began.elapsed();
        if elapsed < WINDOW || self.ahead.is_empty() {
            return;
        }
        let stages = &self.times.stages;
        let read = stages.read_s();
        let all = read + stages.augment_s() + stages.write_s();
        let read_share = (read - *read_s) / (all - *all_s).max(1e-9);
        let samples_per_s = *seen as f64 / elapsed.as_secs_f64();
        self.window = (Instant::now(), 0, [read, all]);
        if std::mem::take(&mut self.skip) {
            return;
        }
        let readers = tuner.next(Seen { samples_per_s, read_share });
        let before = self.times.readers.swap(readers, Ordering::Relaxed);
        if before != readers {
            self.ahead.iter().for_each(|ahead| ahead.set_readers(readers));
            self.skip = true;
        }
    }
}

impl<A: Iterator<Item = Work>> Iterator for Foresight<'_, A> {
    type Item = Work;

    fn next(&mut self) -> Option<Work> {
        while self.next.len() <= self.depth
            && let Some(work) = self.agenda.next()
        {
            if self.depth > 0 {
                source_of(&work, self.preparation).0.announce(&work.indices);
            }
            self.next.push_back(work);
        }
        let work = self.next.pop_front()?;
        self.tune(work.indices.len());
        Some(work)
    }
}

/// A panic becomes an error, so that it reaches whoever waits for the batch.
fn prefetch(work: &Work, preparation: &Preparation) -> Result<()> {
    let source = source_of(work, preparation).0;
    let caught = catch_unwind(AssertUnwindSafe(|| source.prefetch(&work.indices)));
    caught.unwrap_or_else(|panic| Err(panicked(&source.info().name, &*panic)))
}

fn filler<'a>(work: &Work, preparation: &'a Preparation) -> Result<Filler<'a>> {
    let (source, transforms) = source_of(work, preparation);
    // What is held out is the same in every epoch, and in a later evaluation, even where something is drawn.
    let epoch = if work.split == Split::Validation { 0 } else { work.epoch };
    let keys = Keys { seed: preparation.seed, epoch };
    let layout = match work.pass {
        // Evaluation sees images as they come, so the workers do all there is to do.
        Pass::Eval => preparation.layout.clone().without_framings(),
        Pass::Train | Pass::Accumulate => preparation.layout.clone(),
    };
    let filler = Filler::new(layout, source, transforms, keys)?;
    Ok(filler.tolerating(preparation.quarantine.part(work.split)))
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
