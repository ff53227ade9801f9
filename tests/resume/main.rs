//! A run that is stopped and resumed at any step is the same run, bit for bit.

#[path = "../common/mod.rs"]
mod common;
mod ended;

use std::path::Path;
use std::sync::{Arc, Mutex};

use common::{Residual, config, devices, model, rows};
use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::nn::Module;
use inflight::nn::gpt::{Gpt, GptConfig};
use inflight::nn::layers::Layer;
use inflight::nn::optimizers::OptimizerConfig;
use inflight::nn::sequential::Sequential;
use inflight::nn::vit::{Size, VisionTransformer};
use inflight::sampler::SamplingConfig;
use inflight::source::{DataConfig, OpenOptions, Sample, Source, SourceInfo, Synthetic, Target};
use inflight::train::checkpoint::{self, Checkpoint};
use inflight::train::event::{Event, StepReport, Summary};
use inflight::{Result, RunConfig, Trainer};

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
