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

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::assembly::Assembly;
use crate::batch::{Slot, SlotLayout};
use crate::clock::Stamp;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::foresight::{Autotune, Foresight};
use crate::gauges::Gauges;
use crate::graph::plan::Pass;
use crate::prepare::{Filler, Keys, guarded};
use crate::quarantine::Quarantine;
use crate::report::trace::{Tracer, Track};
use crate::ring::Ring;
use crate::source::supply::{READERS_MAX, Supply};
use crate::source::{ENDLESS, ReadAhead, Source};
use crate::transform::Transform;
use crate::tuner::{Free, Sizes, Tuner};

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

/// Which numbers are found while the run goes on, by how many samples come of them. The result does not depend on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Find {
    /// How many of the workers are at work.
    pub workers: bool,
    /// How many slots of the ring are in play.
    pub slots: bool,
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
    /// Number of workers; the most of them, where their number is found.
    pub workers: usize,
    /// What is found while the run goes on.
    pub find: Find,
    /// What is done about bad samples, and which there are.
    pub quarantine: Arc<Quarantine>,
    /// How samples come to the workers.
    pub supply: Supply,
}

/// The ends of the channels that the device thread holds. Dropping them ends the prepare thread.
#[derive(Debug)]
pub struct DeviceEnds {
    /// Filled slots, in order; an error ends them.
    pub full: Receiver<Result<Filled>>,
    /// Where slots go when they can be filled again.
    pub empty: Sender<Slot>,
    /// What is measured meanwhile.
    pub gauges: Arc<Gauges>,
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
    /// the channels. All `slots` start out empty; where their number is found, the first ones of them are in play.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        slots: Vec<Slot>,
        agenda: impl Iterator<Item = Work> + Send + 'static,
        preparation: Preparation,
        device: impl FnOnce(DeviceEnds) + Send + 'static,
    ) -> Result<Self> {
        Self::start_traced(slots, agenda, preparation, None, device)
    }

    /// As [`Pipeline::start`], with all that happens written into a trace.
    ///
    /// # Errors
    /// As [`Pipeline::start`].
    pub fn start_traced(
        slots: Vec<Slot>,
        agenda: impl Iterator<Item = Work> + Send + 'static,
        mut preparation: Preparation,
        tracer: Option<Arc<Tracer>>,
        device: impl FnOnce(DeviceEnds) + Send + 'static,
    ) -> Result<Self> {
        // Bound: the ring itself. No more batches can exist than slots, so no send ever waits on these.
        let (empty_in, empty_out) = bounded(slots.len());
        let (full_in, full_out) = bounded(slots.len() + 1);
        preparation.workers = preparation.workers.max(1);
        let Preparation { train, validation, supply, .. } = &mut preparation;
        let supplied = supply.set_up(train.clone(), validation.clone())?;
        (*train, *validation) = (supplied.train, supplied.validation);
        let gauges = Arc::new(Gauges { stores: supplied.stores, tracer, ..Gauges::default() });
        let ends = DeviceEnds { full: full_out, empty: empty_in, gauges: gauges.clone() };
        let sources = [Some(&preparation.train), preparation.validation.as_ref()];
        let sources = Sources(sources.into_iter().flatten().cloned().collect());
        let threads = Vec::with_capacity(2 + preparation.workers);
        let mut pipeline = Self { threads, sources };
        let pool = pipeline.pool(preparation.workers)?;
        let ahead = &gauges.stores.ahead;
        let tuner = tuner(&preparation, slots.len(), ahead);
        // Of a stream no batch is asked for before its turn: whoever sends it may wait until the one before is applied.
        let streams = preparation.train.len() == ENDLESS;
        let depth = if ahead.is_empty() || streams { 0 } else { depth(&preparation) };
        let autotune = Autotune::new(tuner, gauges.clone());
        pipeline.spawn("prepare", move || {
            let announce = |work: &Work| source_of(work, &preparation).0.announce(&work.indices);
            let foresight = Foresight::new(agenda, depth, announce, autotune);
            let ring = Ring::new(slots, &empty_out, &gauges.at_work.slots);
            let ended = guarded("the next batch", || {
                prepare_loop(foresight, &preparation, &pool, ring, &full_in, &gauges);
                Ok(())
            });
            if let Err(error) = ended {
                // There is room for it after all batches, unless an error before it is there already.
                let _ = full_in.try_send(Err(error));
            }
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
    mut agenda: impl Iterator<Item = Work>,
    preparation: &Preparation,
    pool: &rayon::ThreadPool,
    mut ring: Ring<'_>,
    full: &Sender<Result<Filled>>,
    gauges: &Gauges,
) {
    let assembly = Assembly::new(preparation.workers, full, gauges, &preparation.quarantine);
    let assembly = &assembly;
    pool.in_place_scope_fifo(|scope| {
        for number in 0.. {
            let asked = Stamp::now();
            let Some(work) = agenda.next() else { return };
            gauges.fetching.add(asked.elapsed());
            let waiting = Instant::now();
            let Some(slot) = ring.next() else { return assembly.stop() };
            if let Some(tracer) = gauges.tracing() {
                let (name, args) = ("wait for an empty slot", json!({ "batch": number }));
                tracer.span(Track::Thread, name, waiting, Instant::now(), args);
            }
            if !assembly.begin() {
                return;
            }
            // Waiting for a stream's samples is done here, outside of the pool.
            let asked = Stamp::now();
            let fetched = prefetch(&work, preparation);
            gauges.fetching.add(asked.elapsed());
            match fetched.and_then(|()| filler(&work, preparation)) {
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

/// Batches that are announced before their turn.
fn depth(preparation: &Preparation) -> usize {
    let samples = 2 * preparation.supply.readers.unwrap_or(READERS_MAX);
    let enough = samples.div_ceil(preparation.layout.batch_size.max(1)).max(AHEAD_MIN);
    preparation.supply.prefetch.unwrap_or(enough)
}

/// What there is to find out about how many should be at work, where `ring` slots are all there are.
fn tuner(preparation: &Preparation, ring: usize, ahead: &[Arc<ReadAhead>]) -> Tuner {
    let Preparation { workers, find, supply, .. } = preparation;
    let readers_max = ahead.iter().map(|ahead| ahead.readers_max()).max();
    let readers = supply.readers.unwrap_or(0).min(readers_max.unwrap_or(0));
    let given = Sizes { readers, slots: ring, workers: *workers };
    let free = Free {
        readers: readers_max.filter(|_| supply.readers.is_none()),
        slots: find.slots.then_some(ring),
        workers: find.workers.then_some(*workers),
    };
    Tuner::new(given, free)
}

/// A panic becomes an error, so that it reaches whoever waits for the batch.
fn prefetch(work: &Work, preparation: &Preparation) -> Result<()> {
    let source = source_of(work, preparation).0;
    guarded(&source.info().name, || source.prefetch(&work.indices))
}

fn filler<'a>(work: &Work, preparation: &'a Preparation) -> Result<Filler<'a>> {
    let (source, transforms) = source_of(work, preparation);
    // What is held out is the same in every epoch, and in a later evaluation, even where something is drawn.
    let epoch = if work.split == Split::Validation { 0 } else { work.epoch };
    let keys = Keys { seed: preparation.seed, epoch };
    let layout = match work.pass {
        // Evaluation sees images as they come, so the workers do all there is to do.
        Pass::Eval | Pass::Decode(_) => preparation.layout.clone().without_framings(),
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
