//! The suite: workloads that never change within a version, so that results of different machines can be held against each
//! other. All of it fits any device in five minutes, and the quick one in one: every round times each workload once, after a
//! first round that warms up and tells how many there is time for; rounds go on until every interval is narrow or the time
//! is up. What would take too long is left out, which the results say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::kernels::{self, Kernel, Outcome};
use super::loader::{Loader, Pipe, preparation};
use super::results::{Device, LeftOut, Program, Results, SCHEMA, SCHEMA_VERSION, Workload};
use super::stats::{Estimate, median};
use super::train::Road;
use super::{Bed, Ceilings, Options, conditions};
use crate::Trainer;
use crate::batch::{DType, SampleSpec, SlotLayout, TargetSpec};
use crate::config::RunConfig;
use crate::error::Result;
use crate::executor::Tune;
use crate::gpu;
use crate::gpu::stopwatch::Effort;
use crate::gpu::tune::{Choices, Tuner};
use crate::rng::Rng;
use crate::sampler::Sampler;
use crate::source::Source;
use crate::source::pictures::Pictures;
use crate::train::rate::Rate;
use crate::transform::{HorizontalFlip, RandomResizedCrop, TransformConfig};

/// Which workloads there are, of which sizes, and what of them is timed: changes with any of that.
pub const SUITE_VERSION: u32 = 2;

/// Seconds that the suite may take, whole and quick; a little less than what is promised, for what comes before and after.
const SECONDS: [f64; 2] = [280.0, 52.0];
/// Rounds at least, for the test of Mann and Whitney to tell anything; what takes too long for them is left out.
const ROUNDS_MIN: usize = 6;
/// Rounds at most.
const ROUNDS_MAX: usize = 40;
/// Half-width of an interval below which a workload is done.
const NARROW: f64 = 0.005;
/// Side of the square products.
const SIDE: &str = "1024x1024x1024";
/// Seconds that a step of a model or a batch is timed for in a round, whole and quick; and a kernel.
const STEPS_S: [f64; 2] = [0.4, 0.15];
const KERNEL_S: [f64; 2] = [0.1, 0.04];
/// How long a single workload may take in the round that warms up before it is left out.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lengthens all times by this factor in a test build, made with the environment variable `INFLIGHT_PLANTED_SLOWDOWN`:
/// to find out whether `bench compare` finds it.
fn planted_slowdown() -> f64 {
    option_env!("INFLIGHT_PLANTED_SLOWDOWN").and_then(|factor| factor.parse().ok()).unwrap_or(1.0)
}

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Single operations.
    Kernels,
    /// Steps of models over batches in place.
    Train,
    /// Preparing batches, and training with all of it.
    Pipeline,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 3] = [Part::Kernels, Part::Train, Part::Pipeline];
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As [`device::open`](crate::device::open) takes it.
    pub device: String,
    /// The parts.
    pub parts: Vec<Part>,
    /// Whether it is the quick one.
    pub quick: bool,
}

/// What is told while the suite runs.
#[derive(Clone, Debug)]
pub enum News<'a> {
    /// What is measured.
    Device(&'a Device),
    /// A round is over: how many are, seconds so far, seconds there are.
    Round(usize, f64, f64),
}

/// A workload, and its times so far.
struct Entry {
    id: String,
    samples: u64,
    work: Work,
    share: Option<f64>,
    each_s: Vec<f64>,
    /// Why there was no time the last time that there was none.
    fault: String,
    /// Seconds that a round of it takes, with what is around the times.
    cost_s: f64,
}

enum Work {
    Kernel(Box<Kernel>),
    /// Steps of a model, under way.
    Steps(Box<Road>),
    /// Preparation of batches of this source.
    Prepare(Arc<dyn Source>, Vec<TransformConfig>),
    /// A whole training.
    Whole(&'static str),
}

/// Runs it.
///
/// # Errors
/// When the device cannot be opened, or fails.
pub fn run(plan: &Plan, mut news: impl FnMut(News<'_>)) -> Result<Results> {
    let began = Instant::now();
    let before = conditions::now();
    let mut bed = Bed::open(&plan.device)?;
    let device = device(&bed);
    news(News::Device(&device));
    let ceilings = bed.ceilings(true)?;
    ceilings.keep(&bed.device());
    let mut left_out = Vec::new();
    let mut suite = Suite::new(&bed, plan, ceilings, &mut left_out)?;
    let seconds = SECONDS[usize::from(plan.quick)];
    let spent = || began.elapsed().as_secs_f64();
    suite.warm_up(&mut bed, seconds - spent(), &mut left_out)?;
    let mut rounds = 0;
    while rounds < ROUNDS_MAX && !suite.is_narrow() {
        let round_s: f64 = suite.entries.iter().map(|entry| entry.cost_s).sum();
        if rounds >= ROUNDS_MIN && spent() + round_s > seconds {
            break;
        }
        suite.round(&mut bed)?;
        rounds += 1;
        news(News::Round(rounds, spent(), seconds));
    }
    Ok(Results {
        schema: SCHEMA.into(),
        schema_version: SCHEMA_VERSION,
        suite_version: SUITE_VERSION,
        quick: plan.quick,
        created_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        program: program(),
        device,
        host: conditions::host(),
        before,
        after: conditions::now(),
        ceilings: ceilings_by_name(&ceilings),
        workloads: workloads(suite.entries, &mut left_out),
        left_out,
        rounds,
        wall_s: spent(),
    })
}

/// All workloads, on a device.
struct Suite {
    device: String,
    quick: bool,
    ceilings: Ceilings,
    choices: Choices,
    entries: Vec<Entry>,
}

impl Suite {
    fn new(
        bed: &Bed,
        plan: &Plan,
        ceilings: Ceilings,
        left_out: &mut Vec<LeftOut>,
    ) -> Result<Self> {
        let mut suite = Self {
            device: plan.device.clone(),
            quick: plan.quick,
            ceilings,
            choices: Choices::default(),
            entries: Vec::new(),
        };
        for part in &plan.parts {
            match part {
                Part::Kernels => suite.add_kernels(bed)?,
                Part::Train => suite.add_steps(bed, left_out)?,
                Part::Pipeline => suite.add_pipelines()?,
            }
        }
        Ok(suite)
    }

    fn add(&mut self, id: String, samples: u64, work: Work) {
        let (each_s, fault) = Default::default();
        self.entries.push(Entry { id, samples, work, share: None, each_s, fault, cost_s: 0.0 });
    }

    /// Square products, and what a step of a small convolutional network consists of.
    fn add_kernels(&mut self, bed: &Bed) -> Result<()> {
        let options = options("cnn", 128);
        let list = kernels::list(&options)?;
        let list: Vec<Kernel> = list
            .into_iter()
            .filter(|kernel| kernel.model.is_some() || kernel.name.contains(SIDE))
            .collect();
        if let Bed::Gpu(stopwatch) = bed {
            let tasks = list.iter().map(Kernel::task);
            self.choices = Tuner::new(Tune::Fast).tasks(tasks, stopwatch.context()).choices;
        }
        for kernel in list {
            self.add(format!("kernels/{}", kernel.name), 0, Work::Kernel(Box::new(kernel)));
        }
        Ok(())
    }

    fn add_steps(&mut self, bed: &Bed, left_out: &mut Vec<LeftOut>) -> Result<()> {
        for (model, batch) in [("mlp", 128), ("cnn", 128), ("resnet18", 8)] {
            let id = format!("train/{model}/{batch}");
            if self.quick && model == "resnet18" {
                left_out.push(LeftOut { id, why: "the quick suite has no time for it".into() });
                continue;
            }
            match Road::open(bed, model, &options(model, batch)) {
                Ok(road) => self.add(id, batch as u64, Work::Steps(Box::new(road))),
                Err(error) => {
                    // What does not fit is no failure of the device, which must go on working.
                    bed.check()?;
                    left_out.push(LeftOut { id, why: error.to_string() });
                }
            }
        }
        Ok(())
    }

    fn add_pipelines(&mut self) -> Result<()> {
        let raw = super::samples("cnn")?;
        self.add("pipeline/raw/1x28x28/128".into(), 128, Work::Prepare(raw, Vec::new()));
        let photos: Arc<dyn Source> = Arc::new(photos());
        let usual = vec![
            TransformConfig::RandomResizedCrop(RandomResizedCrop::default()),
            TransformConfig::HorizontalFlip(HorizontalFlip::default()),
        ];
        self.add("pipeline/jpeg/3x224x224/32".into(), 32, Work::Prepare(photos, usual));
        self.add("pipeline/whole/cnn/128".into(), 128, Work::Whole("cnn"));
        Ok(())
    }

    /// Times everything once, of which nothing is kept but what it costs; leaves out what there is no time for.
    fn warm_up(&mut self, bed: &mut Bed, seconds: f64, left_out: &mut Vec<LeftOut>) -> Result<()> {
        let began = Instant::now();
        let mut entries = std::mem::take(&mut self.entries);
        let mut kept: Vec<Entry> = Vec::new();
        for mut entry in entries.drain(..) {
            let started = Instant::now();
            let fault = match self.time(&mut entry, bed)? {
                Ok(_) if started.elapsed() < PATIENCE => None,
                Ok(_) => Some("takes too long on this device".into()),
                Err(why) => Some(why),
            };
            // The first time compiles; the second tells what a round takes.
            let again = Instant::now();
            if fault.is_none() {
                drop(self.time(&mut entry, bed)?);
            }
            entry.cost_s = again.elapsed().as_secs_f64();
            match fault {
                None => kept.push(entry),
                Some(why) => left_out.push(LeftOut { id: entry.id, why }),
            }
        }
        let left_s = seconds - began.elapsed().as_secs_f64();
        loop {
            let round_s: f64 = kept.iter().map(|entry| entry.cost_s).sum();
            if ROUNDS_MIN as f64 * round_s <= left_s || kept.len() <= 1 {
                break;
            }
            let dearest = (0..kept.len())
                .max_by(|&a, &b| kept[a].cost_s.total_cmp(&kept[b].cost_s))
                .unwrap_or(0);
            let Entry { id, cost_s, .. } = kept.remove(dearest);
            let why =
                format!("{ROUNDS_MIN} rounds of {cost_s:.1} s are more than there is time for");
            left_out.push(LeftOut { id, why });
        }
        self.entries = kept;
        Ok(())
    }

    /// Times what is not yet narrow once more.
    fn round(&mut self, bed: &mut Bed) -> Result<()> {
        let mut entries = std::mem::take(&mut self.entries);
        for entry in entries.iter_mut().filter(|entry| !entry.is_narrow()) {
            match self.time(entry, bed)? {
                Ok(seconds) => entry.each_s.push(seconds * planted_slowdown()),
                Err(why) => entry.fault = why,
            }
        }
        self.entries = entries;
        Ok(())
    }

    fn is_narrow(&self) -> bool {
        self.entries.iter().all(Entry::is_narrow)
    }

    /// Seconds of a repetition; or why there are none.
    fn time(&self, entry: &mut Entry, bed: &mut Bed) -> Result<Result<f64, String>> {
        let which = usize::from(self.quick);
        let found = match &mut entry.work {
            Work::Kernel(kernel) => {
                let effort = Effort { passes: 15, seconds: KERNEL_S[which] };
                return Ok(match kernel.outcome(bed, &self.ceilings, &self.choices, effort)? {
                    Outcome::Timed(row) => {
                        entry.share = Some(row.score.share);
                        Ok(row.score.lap.median_s)
                    }
                    Outcome::LeftOut { why, .. } => Err(why),
                });
            }
            Work::Steps(road) => road.steps(1000, STEPS_S[which]).map(|steps| {
                median(&steps.iter().map(|step| step.interval_s).collect::<Vec<f64>>())
            }),
            Work::Prepare(source, transforms) => {
                prepare_s(source, transforms, entry.samples as usize, STEPS_S[which])
            }
            Work::Whole(model) => self.whole_s(model, entry.samples as usize, STEPS_S[which]),
        };
        match found {
            Ok(seconds) => Ok(Ok(seconds)),
            Err(error) => {
                bed.check()?;
                Ok(Err(error.to_string()))
            }
        }
    }

    /// Seconds a step of a whole training: samples made, prepared, uploaded and computed on.
    fn whole_s(&self, model: &str, batch_size: usize, seconds: f64) -> Result<f64> {
        let source = super::samples(model)?;
        let config = RunConfig {
            device: self.device.clone(),
            batch_size,
            steps: Some(1 << 31),
            slots: Some(3),
            workers: cores(),
            eval: false,
            model: model.into(),
            ..Default::default()
        };
        let built = config.model.build(source.spec())?;
        let trainer = Trainer::builder(built, source).config(config).start()?;
        Ok(Rate::of(&trainer, 6, 1000, Duration::from_secs_f64(seconds))?.step_s)
    }
}

impl Entry {
    fn is_narrow(&self) -> bool {
        self.each_s.len() >= 2 * ROUNDS_MIN && Estimate::of(&self.each_s).spread() < NARROW
    }

    fn workload(self) -> Workload {
        let time_s = Estimate::of(&self.each_s);
        let Self { id, samples, each_s, share, .. } = self;
        Workload { id, samples, time_s, each_s, share }
    }
}

/// What was timed. What failed in every round is left out: without a time it is none, and no file of results has such.
fn workloads(entries: Vec<Entry>, left_out: &mut Vec<LeftOut>) -> Vec<Workload> {
    let has_times = |entry: &Entry| !entry.each_s.is_empty();
    let (timed, failed): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(has_times);
    left_out.extend(failed.into_iter().map(|entry| LeftOut { id: entry.id, why: entry.fault }));
    timed.into_iter().map(Entry::workload).collect()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn options(model: &str, batch_size: usize) -> Options {
    Options {
        quick: true,
        models: vec![model.into()],
        batch_size,
        precision: "f32".into(),
        tune: Tune::Fast,
    }
}

/// Seconds a batch of preparation alone.
fn prepare_s(
    source: &Arc<dyn Source>,
    transforms: &[TransformConfig],
    batch_size: usize,
    seconds: f64,
) -> Result<f64> {
    let sampler = Sampler::new(source.len(), batch_size, 0, true, true)?;
    let layout = SlotLayout::new(source.spec(), batch_size);
    let preparation = preparation(source, transforms, layout, cores());
    Loader::start(Pipe { sampler, slots: 3 }, preparation)?.batch_s(4, seconds, u64::MAX)
}

fn program() -> Program {
    let features = [
        ("parquet", cfg!(feature = "parquet")),
        ("cloud", cfg!(feature = "cloud")),
        ("queue", cfg!(feature = "queue")),
        ("turbojpeg", cfg!(feature = "turbojpeg")),
    ];
    let on: Vec<&str> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    Program {
        version: env!("CARGO_PKG_VERSION").into(),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
        build: format!("{}-{} {}", std::env::consts::ARCH, std::env::consts::OS, on.join(",")),
        planted_slowdown: planted_slowdown(),
    }
}

fn device(bed: &Bed) -> Device {
    let info = bed.device();
    let adapter = gpu::adapters()
        .into_iter()
        .find(|adapter| (&adapter.name, &adapter.backend) == (&info.name, &info.backend));
    let mut limits = BTreeMap::new();
    let mut features = Vec::new();
    if let Some(adapter) = adapter {
        limits.extend(adapter.memory_bytes.map(|bytes| ("memory_bytes".to_string(), bytes)));
        for (name, value) in [
            ("max_buffer_bytes", adapter.max_buffer_bytes),
            ("max_binding_bytes", adapter.max_binding_bytes),
            ("max_bindings", adapter.max_bindings.into()),
            ("workgroup_bytes", adapter.workgroup_bytes.into()),
            ("max_invocations", adapter.max_invocations.into()),
            ("subgroup_min", adapter.subgroup_sizes[0].into()),
            ("subgroup_max", adapter.subgroup_sizes[1].into()),
        ] {
            limits.insert(name.into(), value);
        }
        features = adapter.features;
    }
    let threads = cores() as u64;
    if info.kind == "twins" {
        limits.insert("threads".into(), threads);
    }
    let (name, kind, backend, driver) = (info.name, info.kind, info.backend, info.driver);
    Device { name, kind, backend, driver, limits, features }
}

fn ceilings_by_name(ceilings: &Ceilings) -> BTreeMap<String, f64> {
    let all = [
        ("bytes_per_s", Some(ceilings.bytes_per_s)),
        ("f32_flops_per_s", Some(ceilings.f32_flops_per_s)),
        ("f16_flops_per_s", ceilings.f16_flops_per_s),
        ("matrix_flops_per_s", ceilings.matrix_flops_per_s),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))).collect()
}

/// How many pictures like photographs there are.
const PHOTOS: usize = 64;

/// JPEGs in memory, to be prepared at 224 px.
fn photos() -> Pictures {
    let spec = SampleSpec {
        input_shape: vec![3, 224, 224],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 10 },
    };
    Pictures::new("photos", PHOTOS, spec, (0..PHOTOS as u64).map(photo).collect())
}

/// A picture like a photograph: smooth areas, edges and grain, 320 x 240.
fn photo(number: u64) -> Vec<u8> {
    let mut rng = Rng::keyed(&[0x9407, number]);
    let waves: Vec<[f64; 4]> =
        (0..6).map(|_| [0.02, 0.02, 6.3, 40.0].map(|most| rng.range(0.0, most))).collect();
    let picture = image::RgbImage::from_fn(320, 240, |x, y| {
        let smooth: f64 = waves
            .iter()
            .map(|[fx, fy, phase, size]| {
                size * (6.3 * (fx * f64::from(x) + fy * f64::from(y)) + phase).sin()
            })
            .sum();
        let edge = if (x / 40 + y / 30) % 2 == 0 { 24.0 } else { 0.0 };
        let grain = rng.range(-8.0, 8.0);
        let light = |shift: f64| (128.0 + smooth + edge + grain + shift).clamp(0.0, 255.0) as u8;
        image::Rgb([light(0.0), light(12.0), light(-12.0)])
    });
    let mut file = std::io::Cursor::new(Vec::new());
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 90);
    picture.write_with_encoder(encoder).expect("memory can be written");
    file.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_in_every_round_is_left_out_with_its_error() {
        let ceilings = Ceilings {
            bytes_per_s: 1.0,
            f32_flops_per_s: 1.0,
            f16_flops_per_s: None,
            matrix_flops_per_s: None,
        };
        // A training on a device that there is not.
        let device = "nosuch".into();
        let (choices, entries) = Default::default();
        let mut suite = Suite { device, quick: true, ceilings, choices, entries };
        suite.add("pipeline/timed".into(), 8, Work::Whole("mlp"));
        suite.add("pipeline/failed".into(), 8, Work::Whole("mlp"));
        suite.entries[0].each_s.push(0.1);
        for _ in 0..2 {
            suite.round(&mut Bed::Twins).expect("the twins still work");
        }
        let mut left_out = Vec::new();
        let found = workloads(suite.entries, &mut left_out);
        assert_eq!(found.iter().map(|w| &w.id[..]).collect::<Vec<_>>(), ["pipeline/timed"]);
        assert_eq!(found[0].each_s, [0.1]);
        let [LeftOut { id, why }] = &left_out[..] else { panic!("{left_out:?}") };
        assert!(id == "pipeline/failed" && why.contains("nosuch"), "{id}: {why}");
    }
}
