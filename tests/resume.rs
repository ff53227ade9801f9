//! A run that is stopped and resumed at any step is the same run, bit for bit.

mod common;

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{Residual, Rows, config, devices, model, rows};
use inflight::batch::{DType, SampleSpec, Slot, TargetSpec};
use inflight::executor::{DeviceInfo, Done, Executor, Wants};
use inflight::graph::Arena;
use inflight::graph::plan::Pass;
use inflight::nn::Module;
use inflight::nn::gpt::{Gpt, GptConfig};
use inflight::nn::layers::Layer;
use inflight::nn::optimizers::OptimizerConfig;
use inflight::nn::sequential::Sequential;
use inflight::nn::vit::{Size, VisionTransformer};
use inflight::report::folder::RunLock;
use inflight::report::trace::Tracer;
use inflight::sampler::SamplingConfig;
use inflight::source::{
    DataConfig, OpenOptions, Sample, Source, SourceInfo, Stream, StreamFormat, Synthetic, Target,
};
use inflight::train::TrainerBuilder;
use inflight::train::checkpoint::{self, Checkpoint};
use inflight::train::event::{Event, StepReport, Summary};
use inflight::{Result, RunConfig, Trainer, device};

struct Outcome {
    steps: Vec<StepReport>,
    summary: Summary,
}

fn run(config: RunConfig, dir: &Path, resume: bool, stop_after: Option<u64>) -> Outcome {
    let source = rows(100);
    let mut builder = Trainer::builder(model(source.spec()), source).validation(rows(30));
    builder = builder.config(config).run_dir(dir);
    if resume {
        let latest = checkpoint::latest(dir).expect("a checkpoint to resume from");
        builder = builder.resume(latest.checkpoint);
    }
    let trainer = builder.start().expect("the run starts");
    let (events, commands) = (trainer.queue(1000), trainer.commands());
    match stop_after {
        Some(steps) => {
            for _ in 0..steps {
                pollster::block_on(trainer.step()).expect("the step succeeds");
            }
            commands.stop();
        }
        None => {
            pollster::block_on(trainer.fit()).expect("the run succeeds");
        }
    }
    let mut steps = Vec::new();
    for event in events {
        match event.expect("no failure") {
            Event::Step(step) => steps.push(step),
            Event::Done(summary) => return Outcome { steps, summary: *summary },
            _ => {}
        }
    }
    panic!("the run ended without a summary");
}

fn losses(steps: &[StepReport]) -> Vec<(u64, u64)> {
    steps.iter().map(|step| (step.step, step.loss.to_bits())).collect()
}

fn check_every_step(config: &RunConfig) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = run(config.clone(), &folder.path().join("whole"), false, None);
    let total = whole.summary.steps;
    for at in 1..total {
        let dir = folder.path().join(format!("at-{at}"));
        let first = run(config.clone(), &dir, false, Some(at));
        assert!(first.summary.stopped, "stopped at {at}");
        let second = run(config.clone(), &dir, true, None);
        let both = [losses(&first.steps), losses(&second.steps)].concat();
        assert_eq!(both, losses(&whole.steps), "resumed at {at}: losses");
        assert_eq!(second.summary.parameter_hash, whole.summary.parameter_hash, "resumed at {at}");
        assert_eq!(second.summary.val_loss, whole.summary.val_loss, "resumed at {at}: validation");
        assert_eq!(second.summary.loss, whole.summary.loss, "resumed at {at}: epoch");
    }
}

#[test]
fn resuming_at_every_step_is_bit_exact() {
    for device in devices() {
        check_every_step(&RunConfig { steps: Some(9), ..config(device) });
    }
}

#[test]
fn resuming_an_accumulated_run_is_bit_exact() {
    check_every_step(&RunConfig { accumulate: 3, steps: Some(6), ..config("cpu") });
}

#[test]
fn resuming_a_run_with_averaged_weights_is_bit_exact() {
    for device in devices() {
        check_every_step(&RunConfig { steps: Some(4), ema: Some(0.8), ..config(device) });
    }
    let (steps, ema) = (Some(3), Some(0.8));
    check_every_step(&RunConfig { steps, ema, accumulate: 2, ..config("cpu") });
}

#[test]
fn resuming_a_run_with_mixed_batches_and_spared_norms_is_bit_exact() {
    let mut optimizer = OptimizerConfig::adamw();
    if let OptimizerConfig::AdamW { decay_norms_and_biases, .. } = &mut optimizer {
        *decay_norms_and_biases = false;
    }
    let (steps, mixup, cutmix) = (Some(4), Some(0.4), Some(1.0));
    check_every_step(&RunConfig { steps, optimizer, mixup, cutmix, ..config("cpu") });
}

#[test]
fn resuming_a_run_in_mixed_precision_is_bit_exact() {
    for device in devices() {
        check_every_step(&RunConfig { precision: "f16".into(), steps: Some(5), ..config(device) });
    }
}

#[test]
fn neither_workers_nor_slots_nor_lanes_change_the_result() {
    for device in devices() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let hash = |name: &str, config: RunConfig| {
            run(config, &folder.path().join(name), false, None).summary.parameter_hash
        };
        let one = hash("one", RunConfig { workers: 1, ..config(device) });
        assert_eq!(
            one,
            hash("four", RunConfig { workers: 4, ..config(device) }),
            "{device}: workers"
        );
        assert_eq!(
            one,
            hash("five", RunConfig { slots: Some(5), ..config(device) }),
            "{device}: slots"
        );
        assert_eq!(one, hash("sync", RunConfig { sync: true, ..config(device) }), "{device}: sync");
        assert_ne!(one, hash("seed", RunConfig { seed: 8, ..config(device) }), "{device}: seed");
    }
}

/// Tells which samples every step was made from, in order.
struct Logged {
    source: Arc<dyn Source>,
    log: Arc<Mutex<Vec<Vec<usize>>>>,
}

impl Source for Logged {
    fn len(&self) -> usize {
        self.source.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.source.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.source.info()
    }

    fn behind(&self) -> Option<&dyn Source> {
        Some(&*self.source)
    }

    fn class(&self, index: usize) -> Option<u32> {
        match self.source.read(index, &mut Vec::new()).expect("readable").target {
            Target::Class(class) => Some(class),
            _ => None,
        }
    }

    fn applied(&self, indices: &[usize]) {
        self.log.lock().unwrap().push(indices.to_vec());
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        self.source.read(index, scratch)
    }
}

/// All that can be seen of a run, from some step on.
#[derive(Debug, PartialEq)]
struct Seen {
    losses: Vec<(u64, u64)>,
    samples: Vec<Vec<usize>>,
    hash: String,
    loss: Option<f64>,
    val_loss: Option<f64>,
}

/// A data set and a model for it.
struct Subject {
    name: &'static str,
    source: Arc<dyn Source>,
    held_out: Arc<dyn Source>,
    model: Arc<dyn Module>,
    transforms: &'static [&'static str],
}

impl Subject {
    fn run(&self, config: &RunConfig, dir: &Path, from: Option<&Path>) -> Seen {
        let log = Arc::new(Mutex::new(Vec::new()));
        let source = Arc::new(Logged { source: self.source.clone(), log: log.clone() });
        let mut builder = Trainer::builder(self.model.clone(), source).config(config.clone());
        builder = builder.validation(self.held_out.clone()).run_dir(dir);
        if let Some(from) = from {
            builder = builder.resume(Checkpoint::open(from).expect("whole"));
        }
        let trainer = builder.start().expect("starts");
        let events = trainer.queue(1000);
        let summary = pollster::block_on(trainer.fit()).expect("succeeds");
        let steps: Vec<StepReport> = events
            .iter()
            .filter_map(|event| match event.expect("no failure") {
                Event::Step(step) => Some(step),
                _ => None,
            })
            .collect();
        let samples = std::mem::take(&mut *log.lock().unwrap());
        let (loss, val_loss) = (summary.loss, summary.val_loss);
        Seen { losses: losses(&steps), samples, hash: summary.parameter_hash, loss, val_loss }
    }

    /// As Grain tests its iterators: one run that saves at every step, another from each of those checkpoints, and
    /// everything that follows is compared. Those are prepared by one worker and by eight in turn.
    fn restore_at_each_step(&self, config: &RunConfig) {
        let transforms = self.transforms.iter().map(|name| name.parse().expect("a transform"));
        let config = RunConfig { transforms: transforms.collect(), ..config.clone() };
        let dir = tempfile::tempdir().expect("a temporary folder");
        let saving = RunConfig { checkpoint_every: 1.into(), keep: 1000, ..config.clone() };
        let whole = self.run(&saving, &dir.path().join("whole"), None);
        let total = config.steps.expect("a number of steps") as usize;
        assert_eq!((whole.losses.len(), whole.samples.len()), (total, total));
        for at in 1..total {
            let from = checkpoint::checkpoints_dir(&dir.path().join("whole"));
            let config = RunConfig { workers: [8, 1][at % 2], ..config.clone() };
            let to = dir.path().join(at.to_string());
            let rest = self.run(&config, &to, Some(&from.join(format!("step-{at}"))));
            let expected = Seen {
                losses: whole.losses[at..].to_vec(),
                samples: whole.samples[at..].to_vec(),
                hash: whole.hash.clone(),
                ..whole
            };
            assert_eq!(rest, expected, "{} from step {at} with {config:?}", self.name);
        }
    }
}

/// Pictures in folders, a table, bytes and numbers that are made, and text, each with models that fit.
fn subjects(dir: &Path) -> Vec<Subject> {
    let open = |path: &Path, data: &DataConfig| {
        let options = OpenOptions { data: Some(data), offline: true, ..Default::default() };
        inflight::source::open(&path.to_string_lossy(), &options).expect("opens").train
    };
    let vectors = SampleSpec {
        input_shape: vec![5],
        input_dtype: DType::F32,
        target: TargetSpec::Values { len: 2 },
    };
    let numbers = |len, seed| -> Arc<dyn Source> {
        Arc::new(Synthetic::new(len, vectors.clone(), seed).expect("a source"))
    };
    let plain = |spec: &SampleSpec, out: Layer| {
        let layers = vec![Layer::flatten(), Layer::linear(7), Layer::gelu(), out];
        Arc::new(Sequential::new(layers, spec).expect("fits"))
    };
    let images = DataConfig { image_size: Some(8), channels: Some(1), ..Default::default() };
    for index in 0..37u8 {
        let folder = dir.join("pictures").join(["a", "b", "c"][usize::from(index % 3)]);
        std::fs::create_dir_all(&folder).expect("a folder");
        let picture = image::GrayImage::from_fn(11, 9, |x, y| {
            image::Luma([(x * 20 + y * u32::from(index)) as u8])
        });
        picture.save(folder.join(format!("{index}.png"))).expect("writes");
    }
    let rows = (0..41).map(|i| format!("{},{},{}\n", i % 7, i * i % 11, ["x", "y"][i % 2]));
    std::fs::write(dir.join("table.csv"), format!("p,q,label\n{}", rows.collect::<String>()))
        .expect("writes");
    let data = DataConfig { target: Some("label".into()), ..Default::default() };
    let (pictures, table) =
        (open(&dir.join("pictures"), &images), open(&dir.join("table.csv"), &data));
    let text = (0..420u32).map(|i| b'a' + (i * i % 23 % 7) as u8).collect::<Vec<u8>>();
    std::fs::write(dir.join("text.txt"), text).expect("writes");
    let text = open(&dir.join("text.txt"), &DataConfig { context: Some(6), ..Default::default() });
    let gpt = GptConfig { layers: 2, heads: 2, width: 8, dropout: 0.2, ..GptConfig::NANO };
    let vit = Size { depth: 2, width: 8, heads: 2 };
    let (bytes, held_out) = (common::rows(45), common::rows(20));
    let random = &["random_resized_crop", "horizontal_flip", "random_erasing"];
    vec![
        Subject {
            name: "pictures, vision transformer",
            model: Arc::new(VisionTransformer::new(vit, pictures.spec()).expect("fits")),
            held_out: pictures.clone(),
            source: pictures.clone(),
            transforms: random,
        },
        Subject {
            name: "text, language model with dropout",
            model: Arc::new(Gpt::new(gpt, text.spec()).expect("fits")),
            held_out: text.clone(),
            source: text,
            transforms: &[],
        },
        Subject {
            name: "pictures, convolutions",
            model: Arc::new(model(pictures.spec())),
            held_out: pictures.clone(),
            source: pictures,
            transforms: random,
        },
        Subject {
            name: "bytes, residual",
            model: Arc::new(Residual { width: 3 }),
            source: bytes.clone(),
            held_out: held_out.clone(),
            transforms: &["pad_crop"],
        },
        Subject {
            name: "bytes, perceptron",
            model: plain(bytes.spec(), Layer::classes()),
            source: bytes,
            held_out,
            transforms: &[],
        },
        Subject {
            name: "table, perceptron",
            model: plain(table.spec(), Layer::classes()),
            held_out: table.clone(),
            source: table,
            transforms: &[],
        },
        Subject {
            name: "numbers, regression",
            model: plain(&vectors, Layer::linear(2)),
            source: numbers(43, 1),
            held_out: numbers(10, 2),
            transforms: &[],
        },
    ]
}

/// Orders of the samples.
fn samplers(classifies: bool) -> Vec<RunConfig> {
    let base = || RunConfig { batch_size: 12, steps: Some(6), ..config("cpu") };
    let sampling = |sampling| RunConfig { sampling, ..base() };
    let mut all = vec![
        base(),
        RunConfig { shuffle: false, ..base() },
        RunConfig { drop_last: true, ..base() },
        RunConfig { accumulate: 2, ..base() },
        sampling(SamplingConfig { shuffle_block: Some(5), ..Default::default() }),
        sampling(SamplingConfig { rank: 1, world: 2, ..Default::default() }),
    ];
    if classifies {
        all.push(sampling(SamplingConfig { balance: true, ..Default::default() }));
    }
    all
}

/// Every subject in every order with every optimizer and precision: an eighth of these combinations, or all of them with
/// INFLIGHT_ALL=1.
#[test]
fn restoring_at_each_step_shows_the_same_run_whatever_it_consists_of() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let every = if std::env::var_os("INFLIGHT_ALL").is_some() { 1 } else { 8 };
    let optimizers = ["sgd", "adam", "adamw", "muon"];
    let mut tried = 0;
    for (a, subject) in subjects(dir.path()).iter().enumerate() {
        let classifies = subject.source.spec().classes().is_some();
        for (b, sampler) in samplers(classifies).iter().enumerate() {
            for (c, optimizer) in optimizers.iter().enumerate() {
                for (d, precision) in ["f32", "f16"].iter().enumerate() {
                    if (a + b + c + d) % every != 0 {
                        continue;
                    }
                    let optimizer = OptimizerConfig::by_name(optimizer).expect("a name");
                    let precision = (*precision).into();
                    let config = RunConfig { optimizer, precision, ..sampler.clone() };
                    subject.restore_at_each_step(&config);
                    tried += 1;
                }
            }
        }
    }
    assert!(tried >= 370 / every - 5, "{tried} combinations");
    println!("{tried} combinations");
}

#[test]
fn restoring_at_each_step_shows_the_same_run_on_every_device() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for device in devices() {
        for (subject, precision) in subjects(dir.path()).iter().zip(["f32", "f16"].iter().cycle()) {
            let (steps, precision) = (Some(5), (*precision).into());
            let config = RunConfig { batch_size: 15, steps, precision, ..config(device) };
            subject.restore_at_each_step(&config);
        }
    }
}

/// Three batches a step, in order, each step saved.
fn accumulated() -> RunConfig {
    let (steps, shuffle) = (Some(5), false);
    RunConfig {
        accumulate: 3,
        steps,
        shuffle,
        checkpoint_every: 1.into(),
        keep: 9,
        ..config("cpu")
    }
}

/// The first sample of the second batch of the third of these steps.
const IN_THIRD_STEP: usize = 7 * 16;

fn builder(source: Arc<dyn Source>, config: RunConfig, dir: &Path) -> TrainerBuilder {
    Trainer::builder(model(source.spec()), source).config(config).run_dir(dir)
}

fn fit(builder: TrainerBuilder) -> Result<Summary> {
    pollster::block_on(builder.start().expect("starts").fit())
}

fn checkpoint_of(run: &Path, step: u64) -> Checkpoint {
    let path = checkpoint::checkpoints_dir(run).join(format!("step-{step}"));
    Checkpoint::open(path).expect("is there, and whole")
}

/// Running statistics of batch norms among them, which no hash of parameters shows.
#[track_caller]
fn assert_same_bits(a: &Path, b: &Path, step: u64) {
    let different = checkpoint::diff(&checkpoint_of(a, step), &checkpoint_of(b, step)).tensors;
    let names: Vec<_> = different.iter().map(|tensor| &tensor.name).collect();
    assert!(names.is_empty(), "step {step}: {names:?} differ");
}

/// Rows, one of which comes only once the gate is open.
struct Gated {
    rows: Rows,
    at: usize,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gated {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Source for Gated {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.rows.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.rows.info()
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        if index == self.at {
            let is_open = self.is_open.lock().unwrap();
            drop(self.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
        }
        self.rows.read(index, scratch)
    }
}

/// A device that tells of every pass it is given.
struct Watched {
    device: Box<dyn Executor>,
    submitted: Sender<Pass>,
}

impl Executor for Watched {
    fn device(&self) -> DeviceInfo {
        self.device.device()
    }

    fn take_slots(&mut self) -> Result<Vec<Slot>> {
        self.device.take_slots()
    }

    fn submit(&mut self, pass: Pass, slot: Slot, wants: Wants) -> Result<()> {
        self.device.submit(pass, slot, wants)?;
        // After what it waits for, the test does not listen any more.
        let _ = self.submitted.send(pass);
        Ok(())
    }

    fn collect(&mut self, patience: Duration) -> Result<Option<Done>> {
        self.device.collect(patience)
    }

    fn in_flight(&self) -> usize {
        self.device.in_flight()
    }

    fn load(&mut self, arena: Arena, offset: usize, values: &[f32]) -> Result<()> {
        self.device.load(arena, offset, values)
    }

    fn store(&mut self, arena: Arena) -> Result<Vec<f32>> {
        self.device.store(arena)
    }

    fn trace(&mut self, tracer: Arc<Tracer>) -> Result<()> {
        self.device.trace(tracer)
    }

    fn objects_created(&self) -> usize {
        self.device.objects_created()
    }
}

#[test]
fn a_stop_within_an_accumulated_step_finishes_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, part) = (folder.path().join("whole"), folder.path().join("part"));
    let expected = fit(builder(rows(300), accumulated(), &whole)).expect("succeeds");
    let source = Arc::new(Gated {
        rows: Rows::new(300),
        at: IN_THIRD_STEP,
        is_open: Mutex::new(false),
        opened: Condvar::new(),
    });
    let (submitted, passes) = channel();
    let watched = builder(source.clone(), accumulated(), &part).on_device(|program, slots| {
        Ok(Box::new(Watched { device: device::open("cpu", program, slots)?, submitted }))
    });
    let trainer = watched.start().expect("starts");
    let summary = trainer.fit();
    for pass in 0..IN_THIRD_STEP / 16 {
        passes.recv().unwrap_or_else(|_| panic!("pass {pass} is submitted"));
    }
    assert!(trainer.commands().stop());
    source.open();
    let summary = pollster::block_on(summary).expect("ends well");
    drop(trainer);
    assert_eq!((summary.steps, summary.stopped), (3, true), "the step under way is finished");
    assert_same_bits(&part, &whole, 3);
    let latest = checkpoint::latest(&part).expect("a checkpoint").checkpoint;
    let resumed = fit(builder(rows(300), accumulated(), &part).resume(latest)).expect("succeeds");
    assert_eq!(resumed.parameter_hash, expected.parameter_hash);
    assert_same_bits(&part, &whole, 5);
}

#[test]
fn a_sample_that_fails_within_an_accumulated_step_spoils_no_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fit(builder(rows(300), accumulated(), &path("whole"))).expect("succeeds");
    let failing = || -> Arc<dyn Source> {
        Arc::new(Rows { fails_at: Some(IN_THIRD_STEP), ..Rows::new(300) })
    };
    let failed = |builder: TrainerBuilder| {
        let error = fit(builder).expect_err("a sample fails").to_string();
        assert!(error.contains(&format!("sample {IN_THIRD_STEP}")), "{error}");
    };
    failed(builder(failing(), accumulated(), &path("saved")));
    assert_same_bits(&path("saved"), &path("whole"), 2);
    // What was never exact is not saved at all; without running statistics it is.
    let seldom = RunConfig { checkpoint_every: 100.into(), ..accumulated() };
    failed(builder(failing(), seldom.clone(), &path("unsaved")));
    assert!(!checkpoint::any(path("unsaved")).expect("readable"));
    let spec = failing().spec().clone();
    let layers = vec![Layer::flatten(), Layer::classes()];
    let plain = || Sequential::new(layers.clone(), &spec).expect("fits");
    let of =
        |source, config, dir: &Path| Trainer::builder(plain(), source).config(config).run_dir(dir);
    fit(of(rows(300), accumulated(), &path("plain-whole"))).expect("succeeds");
    failed(of(failing(), seldom, &path("plain")));
    assert_same_bits(&path("plain"), &path("plain-whole"), 2);
}

/// So many raw samples of 1 x 8 x 8, and then the end, or an error.
fn stream(samples: u32, fails: bool) -> Arc<dyn Source> {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("a planted failure"))
        }
    }
    let bytes = (0..samples).flat_map(|number| {
        let class = number % 4;
        let pixels = (0..64u32).map(move |i| (number * 7 + i * (class + 1)) as u8);
        class.to_le_bytes().into_iter().chain(pixels)
    });
    let bytes = Cursor::new(bytes.collect::<Vec<u8>>());
    let data = DataConfig {
        classes: Some(4),
        image_size: Some(8),
        channels: Some(1),
        format: Some(StreamFormat::Raw),
        ..Default::default()
    };
    Arc::new(match fails {
        true => Stream::new("test", bytes.chain(Fails), &data, 0).expect("a stream"),
        false => Stream::new("test", bytes, &data, 0).expect("a stream"),
    })
}

#[test]
fn a_stream_that_fails_leaves_a_checkpoint_of_all_that_came() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ends, fails) = (folder.path().join("ends"), folder.path().join("fails"));
    let config = RunConfig { batch_size: 4, steps: Some(100), ..config("cpu") };
    assert_eq!(fit(builder(stream(20, false), config.clone(), &ends)).expect("ends").steps, 5);
    let error = fit(builder(stream(20, true), config, &fails)).expect_err("fails").to_string();
    assert!(error.contains("broke off"), "{error}");
    let latest = checkpoint::latest(&fails).expect("a checkpoint").checkpoint;
    assert_eq!((latest.progress.step, latest.progress.epoch.count), (5, 20.0));
    assert_same_bits(&fails, &ends, 5);
}

#[test]
fn a_stream_that_ends_within_an_accumulated_step_ends_before_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (more, even) = (folder.path().join("more"), folder.path().join("even"));
    let config = RunConfig { batch_size: 4, accumulate: 2, steps: Some(100), ..config("cpu") };
    for (samples, dir) in [(20, &more), (16, &even)] {
        let summary = fit(builder(stream(samples, false), config.clone(), dir)).expect("ends well");
        assert_eq!((summary.steps, summary.samples), (2, 16));
    }
    assert_same_bits(&more, &even, 2);
}

#[test]
fn a_run_that_goes_back_sets_the_later_checkpoints_aside() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = RunConfig { steps: Some(9), checkpoint_every: 3.into(), keep: 2, ..config("cpu") };
    fit(builder(rows(100), config.clone(), dir.path())).expect("succeeds");
    let from = checkpoint_of(dir.path(), 6);
    let trainer = builder(rows(100), config, dir.path()).resume(from).start().expect("starts");
    pollster::block_on(trainer.step()).expect("the step succeeds");
    assert!(trainer.commands().stop());
    pollster::block_on(trainer.fit()).expect("ends well");
    let entries = std::fs::read_dir(checkpoint::checkpoints_dir(dir.path())).expect("a folder");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["step-6", "step-7", "step-9.abandoned"]);
    let latest = checkpoint::latest(dir.path()).expect("a checkpoint");
    assert_eq!(latest.checkpoint.progress.step, 7);
}

#[test]
fn who_holds_the_folder_of_a_run_keeps_others_out_from_one_trainer_to_the_next() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = RunConfig { steps: Some(4), checkpoint_every: 2.into(), ..config("cpu") };
    let lock = RunLock::hold(dir.path()).expect("nobody has it");
    for resumes in [false, true] {
        let mut builder = Trainer::builder(model(rows(100).spec()), rows(100));
        builder = builder.config(config.clone()).locked(lock.clone());
        if resumes {
            builder = builder.resume(checkpoint_of(dir.path(), 2));
        }
        assert_eq!(fit(builder).expect("succeeds").steps, 4);
        let error = RunLock::hold(dir.path()).expect_err("it is held").to_string();
        assert!(error.contains("still going on"), "{error}");
    }
    drop(lock);
    RunLock::hold(dir.path()).expect("nobody has it any more");
}

/// At the end of the steps that are traced, and at that of the run.
#[cfg(target_os = "linux")]
#[test]
fn a_trace_that_finds_no_room_costs_no_step() {
    for traced in [2, 100] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let trace = dir.path().join(inflight::report::trace::TRACE);
        std::os::unix::fs::symlink("/dev/full", trace).expect("a link");
        let config = RunConfig { steps: Some(6), ..config("cpu") };
        let builder = builder(rows(100), config, dir.path()).trace(traced);
        let error = fit(builder).expect_err("there is no room").to_string();
        assert!(error.contains("trace.json"), "{error}");
        let latest = checkpoint::latest(dir.path()).expect("a checkpoint").checkpoint;
        assert_eq!(latest.progress.step, 6, "{traced} steps traced");
    }
}
