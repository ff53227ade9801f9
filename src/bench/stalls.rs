//! `inflight stalls`: what each stage costs a training, by leaving stages out one after the other (Mohan et al.,
//! "Analyzing and mitigating data stalls in DNN training", VLDB 2021, whose DS-Analyzer measures so). A step is timed
//!
//! 1. over a batch that stays on the device: computing alone,
//! 2. with prepared batches that are copied into slots and uploaded,
//! 3. with batches prepared from samples in memory, by the whole pipeline,
//! 4. with samples read from where they lie, out of caches that were emptied as far as the system lets us,
//! 5. as 1, beside a preparation whose batches nobody takes: what contention for the machine costs,
//!
//! and the differences are the stalls: of upload (2 − 1), prepare (3 − 2), fetch (4 − 3) and contention (5 − 1, a part of
//! the others where they overlap). Every round times each once, so that what drifts meets all of them, and differences are
//! taken within rounds.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use rayon::prelude::*;
use serde::Serialize;

use super::loader::{Loader, Pipe, preparation};
use super::ring::{PATIENCE, Ring};
use super::stats::Estimate;
use crate::batch::{SampleSpec, Slot, SlotLayout};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::executor::{DeviceInfo, Wants};
use crate::graph::plan::Program;
use crate::nn::Module;
use crate::pipeline::Preparation;
use crate::prepare;
use crate::sampler::Sampler;
use crate::source::owned::OwnedSample;
use crate::source::supply::Supply;
use crate::source::{ENDLESS, Sample, Source, SourceInfo, no_stream};
use crate::train::rate::Rate;
use crate::transform::{Transform, TransformConfig};
use crate::{Trainer, device};

/// Rounds at least: fewer tell nothing about their spread.
pub const ROUNDS_MIN: usize = 5;

/// Bytes of samples that are held in memory for what is prepared from there.
const HELD_BYTES_MAX: u64 = 256 << 20;
/// Steps of a measurement before those that count, at least.
const WARM_UP: u64 = 4;
/// Slots of the ring where their number is not given.
const SLOTS: usize = 3;
/// Readers where the source waits and their number is not given.
const READERS: usize = 8;

/// What to measure, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounds, each of which times everything once.
    pub rounds: usize,
    /// Seconds for which each thing is timed in a round, about.
    pub seconds: f64,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The data set.
    pub dataset: String,
    /// What it ran on.
    pub device: DeviceInfo,
    /// Samples a batch.
    pub batch_size: usize,
    /// Preparing threads.
    pub workers: usize,
    /// Slots of the ring.
    pub slots: usize,
    /// Readers; 0 where nothing waits for a disk or a network.
    pub readers: usize,
    /// Rounds.
    pub rounds: usize,
    /// Seconds a step, by what it includes.
    pub steps: Vec<Timed>,
    /// Seconds a batch of stages alone: `compute`, `prepare`, and `fetch` with preparation where samples are read.
    pub alone: Vec<Timed>,
    /// What stages add to a step.
    pub stalls: Vec<Stall>,
    /// Seconds a step where every stage waits for the one before (`--sync`).
    pub serial_s: Estimate,
    /// The slowest stage alone, by name.
    pub slowest: String,
    /// (serial − T) ÷ (serial − slowest stage alone), T being a step of the whole pipeline: 1 where all that could overlap
    /// does, 0 where nothing does. Nothing where there is nothing to overlap.
    pub overlap: Option<Estimate>,
    /// What limits these numbers.
    pub notes: Vec<String>,
}

/// A time, of each round.
#[derive(Clone, Debug, Serialize)]
pub struct Timed {
    /// What was timed.
    pub name: String,
    /// Median and interval, in seconds.
    #[serde(flatten)]
    pub time_s: Estimate,
    /// Each round's, in seconds.
    pub each_s: Vec<f64>,
}

/// What a stage adds to a step.
#[derive(Clone, Debug, Serialize)]
pub struct Stall {
    /// `upload`, `prepare`, `fetch`, `contention`.
    pub name: String,
    /// Median and interval, in seconds a step. Below 0 only by noise.
    #[serde(flatten)]
    pub time_s: Estimate,
    /// Share of a step of the whole pipeline.
    pub share: f64,
}

impl Timed {
    fn of(name: &str, each_s: Vec<f64>) -> Self {
        Self { name: name.into(), time_s: Estimate::of(&each_s), each_s }
    }
}

/// What all measurements share.
struct Bench {
    source: Arc<dyn Source>,
    held: Arc<dyn Source>,
    model: Arc<dyn Module>,
    config: RunConfig,
    program: Arc<Program>,
    seconds: f64,
}

/// The times of all rounds, by what was timed.
#[derive(Default)]
struct Rounds {
    resident: Vec<f64>,
    upload: Vec<f64>,
    prepare: Vec<f64>,
    fetch: Vec<f64>,
    beside: Vec<f64>,
    serial: Vec<f64>,
    loader: Vec<f64>,
    cold_loader: Vec<f64>,
}

/// Measures a training of `model` on `source` as `config` says; `round` is told of each round that is done.
///
/// # Errors
/// When the configuration is wrong, the source is a stream, or the device fails.
pub fn run(
    source: Arc<dyn Source>,
    model: Arc<dyn Module>,
    config: &RunConfig,
    options: &Options,
    mut round: impl FnMut(usize),
) -> Result<Report> {
    if source.len() == ENDLESS {
        return Err(no_stream(&*source, "whose samples would have to come several times"));
    }
    if options.rounds < ROUNDS_MIN {
        let message = format!("found {}, expected at least {ROUNDS_MIN}", options.rounds);
        return Err(Error::config("--repeats", message));
    }
    let bench = Bench::new(source, model, config, options.seconds)?;
    let mut lane = Lane::new(&bench)?;
    let mut rounds = Rounds::default();
    let mut emptied = None;
    for i in 0..options.rounds {
        bench.round(&mut lane, i as u64, &mut rounds, &mut emptied)?;
        round(i + 1);
    }
    Ok(bench.report(&lane, &rounds, emptied))
}

impl Bench {
    fn new(
        source: Arc<dyn Source>,
        model: Arc<dyn Module>,
        config: &RunConfig,
        seconds: f64,
    ) -> Result<Self> {
        let waits = source.waits();
        let config = RunConfig {
            // Fixed: what is found while a run goes on would differ from round to round.
            workers: config.worker_count(),
            slots: Some(config.slots.unwrap_or(SLOTS)),
            readers: if waits { config.readers.or(Some(READERS)) } else { config.readers },
            sync: false,
            epochs: None,
            steps: Some(1 << 31),
            eval: false,
            out: None,
            ..config.clone()
        };
        let builder = Trainer::builder(model.clone(), source.clone()).config(config.clone());
        let program = Arc::new(builder.program()?);
        let held: Arc<dyn Source> = Arc::new(Held::read(&source, HELD_BYTES_MAX, config.seed)?);
        Ok(Self { source, held, model, config, program, seconds })
    }

    fn slots(&self) -> usize {
        self.config.slots.unwrap_or(SLOTS)
    }

    /// Times everything once.
    fn round(
        &self,
        lane: &mut Lane,
        number: u64,
        rounds: &mut Rounds,
        emptied: &mut Option<bool>,
    ) -> Result<()> {
        let seed = self.config.seed.wrapping_add(number);
        rounds.resident.push(lane.resident(self.seconds)?);
        rounds.upload.push(lane.uploading(self.seconds)?);
        rounds.prepare.push(self.train(&self.held, seed, false)?);
        rounds.beside.push(self.beside(lane, seed)?);
        rounds.loader.push(self.loader(&self.held, seed)?);
        if self.source.waits() {
            *emptied = Some(self.empty_caches());
            rounds.fetch.push(self.train(&self.source, seed ^ 0x51, false)?);
            self.empty_caches();
            rounds.cold_loader.push(self.loader(&self.source, seed ^ 0xa2)?);
            self.empty_caches();
            rounds.serial.push(self.train(&self.source, seed ^ 0xf3, true)?);
        } else {
            rounds.serial.push(self.train(&self.held, seed, true)?);
        }
        Ok(())
    }

    /// Seconds a step of the whole pipeline.
    fn train(&self, source: &Arc<dyn Source>, seed: u64, sync: bool) -> Result<f64> {
        let slots = if sync { None } else { self.config.slots };
        let config = RunConfig { seed, sync, slots, ..self.config.clone() };
        let waits = source.waits();
        let trainer =
            Trainer::builder(self.model.clone(), source.clone()).config(config).start()?;
        let warm_up = WARM_UP.max(2 * self.slots() as u64);
        // Of samples that are read, each once: the second time they are in the system's memory.
        let once = (source.len() / self.config.batch_size) as u64;
        let most = if waits { once.saturating_sub(warm_up).max(3) } else { 1 << 20 };
        Ok(Rate::of(&trainer, warm_up, most, Duration::from_secs_f64(self.seconds))?.step_s)
    }

    /// A preparation that a device takes batches from, one after the other, for ever.
    fn preparation(&self, source: &Arc<dyn Source>, seed: u64) -> Result<(Pipe, Preparation)> {
        let config = &self.config;
        let sampler = Sampler::new(source.len(), config.batch_size, seed, true, false)?;
        let supply =
            Supply { readers: config.readers, prefetch: config.prefetch, ..Supply::default() };
        let layout = self.program.slot.clone();
        let plain = preparation(source, &config.transforms, layout, config.workers);
        let preparation = Preparation { seed, supply, ..plain };
        Ok((Pipe { sampler, slots: self.slots() }, preparation))
    }

    /// Seconds a batch of preparation alone, into slots that come back at once.
    fn loader(&self, source: &Arc<dyn Source>, seed: u64) -> Result<f64> {
        let (pipe, preparation) = self.preparation(source, seed)?;
        let once = source.len().div_ceil(self.config.batch_size) as u64;
        let most = if source.waits() { once } else { u64::MAX };
        Loader::start(pipe, preparation)?.batch_s(WARM_UP, self.seconds, most)
    }

    /// Seconds a step over a resident batch while preparation runs beside it into nothing.
    fn beside(&self, lane: &mut Lane, seed: u64) -> Result<f64> {
        let (pipe, preparation) = self.preparation(&self.held, seed)?;
        let loader = Loader::start(pipe, preparation)?;
        let took = lane.resident(self.seconds);
        loader.end()?;
        took
    }

    /// Has the system forget what it holds of the data set; whether it could be asked.
    fn empty_caches(&self) -> bool {
        self.config
            .dataset
            .as_deref()
            .map(Path::new)
            .is_some_and(|path| path.exists() && forget(path))
    }

    fn report(&self, lane: &Lane, rounds: &Rounds, emptied: Option<bool>) -> Report {
        let waits = self.source.waits();
        let whole = if waits { &rounds.fetch } else { &rounds.prepare };
        let whole_s = Estimate::of(whole).median;
        let stall = |name: &str, more: &[f64], less: &[f64]| {
            let each: Vec<f64> = more.iter().zip(less).map(|(more, less)| more - less).collect();
            let time_s = Estimate::of(&each);
            Stall { name: name.into(), time_s, share: time_s.median / whole_s }
        };
        let mut steps = vec![
            Timed::of("resident batch", rounds.resident.clone()),
            Timed::of("+ upload", rounds.upload.clone()),
            Timed::of("+ prepare from memory", rounds.prepare.clone()),
        ];
        let mut stalls = vec![
            stall("upload", &rounds.upload, &rounds.resident),
            stall("prepare", &rounds.prepare, &rounds.upload),
        ];
        let mut alone = vec![
            Timed::of("compute", rounds.resident.clone()),
            Timed::of("prepare", rounds.loader.clone()),
        ];
        if waits {
            steps.push(Timed::of("+ cold reads", rounds.fetch.clone()));
            stalls.push(stall("fetch", &rounds.fetch, &rounds.prepare));
            alone.push(Timed::of("fetch", rounds.cold_loader.clone()));
        }
        steps.push(Timed::of("resident, beside a loader", rounds.beside.clone()));
        stalls.push(stall("contention", &rounds.beside, &rounds.resident));
        let slowest = alone
            .iter()
            .max_by(|a, b| a.time_s.median.total_cmp(&b.time_s.median))
            .expect("there are stages");
        let overlap: Vec<f64> = (0..whole.len())
            .map(|i| (rounds.serial[i], whole[i], slowest.each_s[i]))
            .filter(|(serial, _, slowest)| serial > slowest)
            .map(|(serial, whole, slowest)| (serial - whole) / (serial - slowest))
            .collect();
        Report {
            dataset: self.source.info().name.clone(),
            device: lane.device.clone(),
            batch_size: self.config.batch_size,
            workers: self.config.workers,
            slots: self.slots(),
            readers: if waits { self.config.readers.unwrap_or(0) } else { 0 },
            rounds: whole.len(),
            serial_s: Estimate::of(&rounds.serial),
            slowest: slowest.name.clone(),
            overlap: (overlap.len() == whole.len()).then(|| Estimate::of(&overlap)),
            notes: self.notes(emptied),
            steps,
            alone,
            stalls,
        }
    }

    fn notes(&self, emptied: Option<bool>) -> Vec<String> {
        let mut notes = Vec::new();
        let (held, all) = (self.held.len(), self.source.len());
        if held < all {
            notes.push(format!("prepared from memory: {held} of {all} samples"));
        }
        match emptied {
            None => {
                notes.push("the data lie in memory: nothing is read, so there is no fetch".into())
            }
            Some(false) => notes
                .push("the system was not asked to forget the files: reads may not be cold".into()),
            Some(true) => {
                let batches = self.source.len() / self.config.batch_size;
                if batches < 40 {
                    notes.push(format!("only {batches} batches to read cold: little to time"));
                }
            }
        }
        notes
    }
}

/// A device with prepared batches, without a pipeline.
struct Lane {
    ring: Ring,
    device: DeviceInfo,
    layout: SlotLayout,
    /// Prepared batches, as they lie in slots.
    batches: Vec<Slot>,
    pool: rayon::ThreadPool,
}

impl Lane {
    fn new(bench: &Bench) -> Result<Self> {
        let (config, program) = (&bench.config, &bench.program);
        let slots = bench.slots();
        let executor = device::open_tuned(&config.device, program.clone(), slots, config.tune)?;
        let device = executor.device();
        let ring = Ring::new(executor, program, config.seed, 1e-4)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.workers)
            .thread_name(|i| format!("prepare-{i}"))
            .build()
            .map_err(|e| Error::device("threads", "could not be started").caused_by(e))?;
        let layout = program.slot.clone();
        let transforms: Vec<Box<dyn Transform>> =
            config.transforms.iter().filter_map(TransformConfig::build).collect();
        let batch = |i: usize| -> Result<Slot> {
            let mut slot = Slot::host(i, layout.slot_bytes);
            let first = i * layout.batch_size;
            let indices: Vec<usize> =
                (0..layout.batch_size).map(|k| (first + k) % bench.held.len()).collect();
            let (keys, times) = Default::default();
            let (held, transforms) = (&*bench.held, &transforms[..]);
            pool.install(|| {
                prepare::fill(&mut slot, &layout, held, transforms, &indices, keys, &times)
            })?;
            Ok(slot)
        };
        let batches = (0..slots).map(batch).collect::<Result<Vec<Slot>>>()?;
        let mut lane = Self { ring, device, layout, batches, pool };
        let Self { ring, pool, layout, batches, .. } = &mut lane;
        for (i, slot) in ring.free.iter_mut().enumerate() {
            copy(pool, layout, &batches[i % slots], slot);
        }
        Ok(lane)
    }

    /// Seconds a step over a batch that stays where it is.
    fn resident(&mut self, seconds: f64) -> Result<f64> {
        // The first pass brings the batch to the device.
        self.ring.submit(Wants::default())?;
        self.ring.collect()?;
        let wants = Wants { resident: true, ..Wants::default() };
        while !self.ring.free.is_empty() {
            self.ring.submit(wants)?;
        }
        let (mut done, mut began) = (0, Instant::now());
        loop {
            self.ring.collect()?;
            done += 1;
            if done == WARM_UP {
                began = Instant::now();
            }
            if done >= WARM_UP + 3 && began.elapsed().as_secs_f64() > seconds {
                break;
            }
            self.ring.submit(wants)?;
        }
        let took = began.elapsed().as_secs_f64() / (done - WARM_UP) as f64;
        self.ring.drain()?;
        Ok(took)
    }

    /// Seconds a step over prepared batches that are copied into slots, beside the device, and uploaded.
    fn uploading(&mut self, seconds: f64) -> Result<f64> {
        let slots = self.ring.free.len();
        let (full_in, full) = bounded::<Slot>(slots);
        let (empty, empty_out) = bounded::<Slot>(slots);
        let free = std::mem::take(&mut self.ring.free);
        let Self { ring, layout, batches, pool, .. } = self;
        let took = std::thread::scope(|scope| -> Result<(f64, Vec<Slot>)> {
            let copier = std::thread::Builder::new().name("copy".into());
            let copying = copier.spawn_scoped(scope, move || {
                for (i, mut slot) in empty_out.into_iter().enumerate() {
                    copy(pool, layout, &batches[i % batches.len()], &mut slot);
                    if full_in.send(slot).is_err() {
                        break;
                    }
                }
            });
            copying.map_err(|e| Error::device("threads", "could not be started").caused_by(e))?;
            free.into_iter().for_each(|slot| drop(empty.send(slot)));
            let mut back = Vec::with_capacity(slots);
            let (mut done, mut began) = (0, Instant::now());
            loop {
                while let Ok(slot) = full.try_recv() {
                    ring.submit_slot(slot, Wants::default())?;
                }
                let Some(finished) = ring.executor.collect(Duration::from_micros(200))? else {
                    // With nothing to compute the copy is what is waited for.
                    if ring.executor.in_flight() == 0
                        && let Ok(slot) = full.recv_timeout(PATIENCE)
                    {
                        ring.submit_slot(slot, Wants::default())?;
                    }
                    continue;
                };
                done += 1;
                if done == WARM_UP {
                    began = Instant::now();
                }
                if done >= WARM_UP + 3 && began.elapsed().as_secs_f64() > seconds {
                    back.push(finished.slot);
                    break;
                }
                let _ = empty.send(finished.slot);
            }
            let took = began.elapsed().as_secs_f64() / (done - WARM_UP) as f64;
            drop(empty);
            ring.drain()?;
            back.extend(full);
            Ok((took, back))
        });
        let (took, back) = took?;
        self.ring.free.extend(back);
        Ok(took)
    }
}

/// Copies a prepared batch into another slot, with the workers.
fn copy(pool: &rayon::ThreadPool, layout: &SlotLayout, batch: &Slot, slot: &mut Slot) {
    let bytes = batch.bytes().expect("prepared in host memory");
    let part = |offset: usize, len: usize, row: usize| &bytes[offset + row * len..][..len];
    let mut windows = slot.windows(layout);
    pool.install(|| {
        windows.par_iter_mut().enumerate().with_min_len(8).for_each(|(i, window)| {
            window.input.copy_from_slice(part(layout.input_offset, layout.input_bytes, i));
            window.target.copy_from_slice(part(layout.target_offset, layout.target_bytes, i));
            window.framing.copy_from_slice(part(layout.framing_offset, layout.framing_bytes, i));
        });
    });
}

/// Samples of a source in memory, as they come from it: files of images stay encoded.
struct Held {
    inner: Arc<dyn Source>,
    samples: Vec<OwnedSample>,
}

impl Held {
    /// As many as fit, drawn from all over the source.
    fn read(inner: &Arc<dyn Source>, bytes_max: u64, seed: u64) -> Result<Self> {
        let order = Sampler::new(inner.len(), inner.len().max(1), seed, true, false)?;
        let (mut samples, mut bytes, mut scratch) = (Vec::new(), 0, Vec::new());
        for index in order.indices(0, 0) {
            let sample = inner.read(index, &mut scratch)?;
            bytes += OwnedSample::bytes_of(&sample);
            if bytes > bytes_max && !samples.is_empty() {
                break;
            }
            samples.push(OwnedSample::of(&sample));
        }
        Ok(Self { inner: inner.clone(), samples })
    }
}

impl Source for Held {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.inner.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.inner.info()
    }

    fn encoding(&self) -> crate::source::Encoding {
        self.inner.encoding()
    }

    fn read<'a>(&'a self, index: usize, _scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        Ok(self.samples[index].lend())
    }
}

/// Has the system drop what it holds of all files below `path`; whether it could be asked.
#[cfg(target_os = "linux")]
fn forget(path: &Path) -> bool {
    use std::os::fd::AsRawFd;
    let files = walkdir::WalkDir::new(path).follow_links(true).into_iter().flatten();
    files.filter(|entry| entry.file_type().is_file()).all(|entry| {
        let Ok(file) = std::fs::File::open(entry.path()) else { return false };
        // SAFETY: the descriptor is open for as long as `file` is; advice changes no contents.
        let status =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        status == 0
    })
}

#[cfg(not(target_os = "linux"))]
fn forget(_path: &Path) -> bool {
    false
}
