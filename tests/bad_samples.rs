//! Bad samples: an error, or replaced and counted, the same for any number of workers and after any resume.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{CLASSES, Rows, class_of, config, model};
use inflight::batch::SampleSpec;
use inflight::quarantine::{Budget, Entry, OnBadSample};
use inflight::rng::Rng;
use inflight::sampler::SamplingConfig;
use inflight::source::{Sample, Source, SourceInfo, Subset, Target};
use inflight::train::checkpoint::{self, Checkpoint};
use inflight::train::event::{EpochReport, Event, StepReport, Summary};
use inflight::transform::{Image, Transform};
use inflight::{Error, Result, RunConfig, Trainer};

const TRAIN: usize = 100;
const HELD_OUT: usize = 40;

/// Says what is wrong with a sample.
type FaultOf = fn(usize) -> Option<Fault>;

#[derive(Clone, Copy)]
enum Fault {
    Read,
    Label,
    Panic,
}

/// Rows, some of which are bad.
struct Faulty {
    rows: Rows,
    fault: FaultOf,
}

impl Faulty {
    fn new(len: usize, fault: FaultOf) -> Arc<Self> {
        Arc::new(Self { rows: Rows::new(len), fault })
    }
}

impl Source for Faulty {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.rows.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.rows.info()
    }

    fn class(&self, index: usize) -> Option<u32> {
        Some(class_of(index))
    }

    fn origin(&self, index: usize) -> Option<String> {
        Some(format!("row-{index}.bin"))
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        match (self.fault)(index) {
            Some(Fault::Read) => Err(Error::data("row", "found 3 bytes, expected 64")),
            Some(Fault::Panic) => panic!("planted"),
            Some(Fault::Label) => {
                let sample = self.rows.read(index, scratch)?;
                Ok(Sample { target: Target::Class(CLASSES as u32), ..sample })
            }
            None => self.rows.read(index, scratch),
        }
    }
}

/// Every ninth cannot be read, and two have labels out of range.
fn some(index: usize) -> Option<Fault> {
    match index {
        4 | 40 => Some(Fault::Label),
        _ => (index % 9 == 1).then_some(Fault::Read),
    }
}

fn bad_of(len: usize, fault: FaultOf) -> Vec<usize> {
    (0..len).filter(|&i| fault(i).is_some()).collect()
}

fn with(on: OnBadSample, budget: Budget) -> RunConfig {
    let sampling =
        SamplingConfig { on_bad_sample: on, bad_sample_budget: budget, ..Default::default() };
    RunConfig { epochs: Some(2), steps: None, sampling, ..config("cpu") }
}

struct Outcome {
    steps: Vec<StepReport>,
    epochs: Vec<EpochReport>,
    summary: Summary,
}

impl Outcome {
    fn losses(&self) -> Vec<(u64, u64)> {
        self.steps.iter().map(|step| (step.step, step.loss.to_bits())).collect()
    }
}

/// Runs to the end, or so many steps; from the newest checkpoint if the run goes on.
fn run(
    config: RunConfig,
    (train, held_out): (Arc<dyn Source>, Arc<dyn Source>),
    dir: &Path,
    resume: bool,
    stop_after: Option<u64>,
) -> Result<Outcome> {
    let builder = Trainer::builder(model(train.spec()), train).validation(held_out);
    let mut builder = builder.config(config).run_dir(dir);
    if resume {
        builder = builder.resume(checkpoint::latest(dir)?.checkpoint);
    }
    let trainer = builder.start()?;
    let (events, commands) = (trainer.queue(1000), trainer.commands());
    for _ in 0..stop_after.unwrap_or(0) {
        pollster::block_on(trainer.step())?;
    }
    let fit = match stop_after {
        Some(_) => {
            commands.stop();
            None
        }
        None => Some(trainer.fit()),
    };
    let (mut steps, mut epochs) = (Vec::new(), Vec::new());
    for event in events {
        match event? {
            Event::Step(step) => steps.push(step),
            Event::Epoch(epoch) => epochs.push(epoch),
            Event::Done(summary) => {
                drop(fit);
                return Ok(Outcome { steps, epochs, summary: *summary });
            }
            Event::Checkpoint(_) | Event::Pulse(_) => {}
        }
    }
    panic!("the run ended without a summary");
}

fn faulty() -> (Arc<dyn Source>, Arc<dyn Source>) {
    (Faulty::new(TRAIN, some), Faulty::new(HELD_OUT, some))
}

fn ledger(dir: &Path) -> Vec<Entry> {
    let text = std::fs::read_to_string(dir.join("quarantine.jsonl")).expect("a ledger");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

const QUARANTINE: OnBadSample = OnBadSample::Quarantine;

#[test]
fn a_run_with_bad_samples_resumed_at_any_step_is_the_same_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for on in [QUARANTINE, OnBadSample::Skip] {
        let config = with(on, Budget::Samples(30));
        let path = |name: &str| folder.path().join(format!("{on:?}-{name}"));
        let whole = run(config.clone(), faulty(), &path("whole"), false, None).expect("runs");
        let bad = bad_of(TRAIN, some).len() as u64;
        let replaced: Vec<u64> = whole.epochs.iter().map(|epoch| epoch.replaced).collect();
        assert_eq!(replaced, [bad, bad]);
        for at in 1..whole.summary.steps {
            let dir = path(&format!("at-{at}"));
            let first = run(config.clone(), faulty(), &dir, false, Some(at)).expect("runs");
            let second = run(config.clone(), faulty(), &dir, true, None).expect("goes on");
            let both = [first.losses(), second.losses()].concat();
            assert_eq!(both, whole.losses(), "{on:?}: resumed at {at}");
            assert_eq!(second.summary.parameter_hash, whole.summary.parameter_hash, "{on:?}: {at}");
            let counts = |epoch: &EpochReport| (epoch.replaced, epoch.left_out);
            let (found, expected) = (second.epochs.last(), whole.epochs.last());
            assert_eq!(found.map(counts), expected.map(counts), "{on:?}: {at}");
            if on == QUARANTINE {
                assert_eq!(second.summary.bad_samples, whole.summary.bad_samples);
                let key = |entry: &Entry| (entry.sample, entry.split == ledger(&dir)[0].split);
                let mut samples: Vec<_> = ledger(&dir).iter().map(key).collect();
                assert_eq!(samples.len() as u64, whole.summary.bad_samples, "resumed at {at}");
                samples.sort_unstable();
                samples.dedup();
                assert_eq!(samples.len() as u64, whole.summary.bad_samples, "no line twice: {at}");
            }
        }
    }
}

#[test]
fn workers_change_neither_the_run_nor_its_ledger() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = |workers: usize, slots: usize, on, budget| {
        let dir = folder.path().join(format!("{workers}-{slots}-{on:?}"));
        let config = RunConfig { workers, slots: Some(slots), ..with(on, budget) };
        (run(config, faulty(), &dir, false, None).expect("runs"), dir)
    };
    let budget = Budget::Samples(30);
    let (one, dir) = run(1, 2, QUARANTINE, budget);
    let (eight, eight_dir) = run(8, 5, QUARANTINE, budget);
    assert_eq!(one.losses(), eight.losses());
    assert_eq!(one.summary.parameter_hash, eight.summary.parameter_hash);
    assert_eq!(ledger(&dir), ledger(&eight_dir));
    // What is known only saves trying again.
    let (skipped, _) = run(8, 3, OnBadSample::Skip, budget);
    assert_eq!(one.summary.parameter_hash, skipped.summary.parameter_hash);
}

#[test]
fn the_ledger_says_what_and_where_and_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = with(QUARANTINE, Budget::Samples(30));
    let outcome = run(config, faulty(), folder.path(), false, None).expect("runs");
    let entries = ledger(folder.path());
    let (bad_train, bad_held) = (bad_of(TRAIN, some), bad_of(HELD_OUT, some));
    assert_eq!(outcome.summary.bad_samples as usize, bad_train.len() + bad_held.len());
    assert_eq!(outcome.summary.verdict.bad_samples, outcome.summary.bad_samples);
    assert_eq!(outcome.summary.quarantine, Some(folder.path().join("quarantine.jsonl")));
    let epochs = 2 * (bad_train.len() + bad_held.len()) as u64;
    assert_eq!(outcome.summary.replaced_samples, epochs);
    let label = entries.iter().find(|entry| entry.sample == 4).expect("it is there");
    assert!(label.reason.contains("found label 4, expected a label below 4"), "{}", label.reason);
    let row = entries.iter().find(|entry| entry.sample == 10).expect("it is there");
    assert_eq!((&*row.event, &*row.origin, row.epoch), ("quarantine", "row-10.bin", 0));
    assert!(row.reason.contains("found 3 bytes, expected 64"), "{}", row.reason);
    let text = std::fs::read_to_string(folder.path().join("quarantine.jsonl")).expect("a ledger");
    assert!(text.contains("\"split\":\"train\"") && text.contains("\"split\":\"val\""), "{text}");
}

/// Bad by what is drawn for it, as a picture damaged in a part that a crop may leave out.
struct BadAtTimes;

impl Transform for BadAtTimes {
    fn name(&self) -> &str {
        "bad-at-times"
    }

    fn apply(&self, _image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        match rng.uniform() < 0.2 {
            true => Err(Error::data("a picture", "is damaged")),
            false => Ok(()),
        }
    }
}

#[test]
fn what_was_bad_in_another_epoch_changes_no_batch() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Two batches an epoch, so that several epochs are prepared at once.
    let run = |name: &str, workers, from: Option<u64>| {
        let dir = folder.path().join(name);
        let every = RunConfig {
            checkpoint_every: 1.into(),
            keep: 20,
            ..with(QUARANTINE, Budget::Samples(32))
        };
        let config = RunConfig { epochs: Some(4), workers, ..every };
        let rows = common::rows(32);
        let builder = Trainer::builder(model(rows.spec()), rows).transform(BadAtTimes);
        let mut builder = builder.config(config).run_dir(&dir);
        if let Some(step) = from {
            let path = checkpoint::checkpoints_dir(&dir).join(format!("step-{step}"));
            builder = builder.resume(Checkpoint::open(path).expect("is there, and whole"));
        }
        pollster::block_on(builder.start().expect("starts").fit()).expect("within the budget")
    };
    let whole = run("one", 1, None);
    assert!(whole.bad_samples > 10, "{} are bad at times", whole.bad_samples);
    assert_eq!(run("eight", 8, None).parameter_hash, whole.parameter_hash);
    // Its ledger knows what was bad in all four epochs.
    assert_eq!(run("one", 1, Some(1)).parameter_hash, whole.parameter_hash);
}

#[test]
fn where_classes_are_balanced_others_of_the_same_class_stand_in() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Class 0 is left out, and half of class 1 is bad.
    let fault: FaultOf = |i| match class_of(i) {
        0 => Some(Fault::Panic),
        1 => (i % 2 == 1).then_some(Fault::Read),
        _ => None,
    };
    let mut config = with(OnBadSample::Skip, Budget::Samples(30));
    config.sampling.class_weights = [("0".to_string(), 0.0)].into();
    let sources = (Faulty::new(TRAIN, fault) as Arc<dyn Source>, common::rows(HELD_OUT));
    let outcome = run(config, sources, folder.path(), false, None).expect("reads none of class 0");
    assert!(outcome.epochs.iter().all(|epoch| epoch.replaced > 0), "{:?}", outcome.epochs);
}

#[test]
fn what_is_mended_is_used_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = RunConfig { checkpoint_every: 1.into(), ..with(QUARANTINE, Budget::Samples(9)) };
    let run = |fault: FaultOf, resume| {
        let sources = (Faulty::new(TRAIN, fault) as Arc<dyn Source>, common::rows(HELD_OUT));
        run(config.clone(), sources, folder.path(), resume, None)
    };
    // A disk that was away ended the run, and then is there again.
    let ended = run(|i| (i % 4 == 3).then_some(Fault::Read), false).map(|_| ());
    let message = ended.expect_err("more than nine").to_string();
    assert!(message.contains("expected at most 9"), "{message}");
    let listed = ledger(folder.path()).len();
    assert!(listed > 9, "{listed}");
    let again = run(|_| None, true).expect("goes on");
    assert_eq!(again.epochs.last().map(|epoch| epoch.replaced), Some(0));
    assert_eq!(again.summary.bad_samples as usize, listed);
    assert_eq!(ledger(folder.path()).len(), listed);
}

#[test]
fn too_many_bad_samples_end_the_run_with_a_summary() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bad = bad_of(TRAIN, some).len();
    let mut number = 0;
    let mut refusal = |on, budget: Budget, fault: FaultOf, resume: bool| {
        number += usize::from(!resume);
        let sources = (Faulty::new(TRAIN, fault) as Arc<dyn Source>, common::rows(HELD_OUT));
        let dir = folder.path().join(number.to_string());
        let error = match run(with(on, budget), sources, &dir, resume, None) {
            Ok(_) => return None,
            Err(error) => error,
        };
        assert_eq!(error.kind().exit_code(), 3);
        Some(error.to_string())
    };
    assert_eq!(refusal(QUARANTINE, Budget::Samples(bad as u64), some, false), None);
    assert_eq!(refusal(QUARANTINE, Budget::Percent(bad as f64), some, false), None);
    for (on, budget, most) in [
        (QUARANTINE, Budget::Samples(3), 3),
        (OnBadSample::Skip, Budget::Samples(bad as u64 - 1), bad - 1),
        (QUARANTINE, Budget::Percent(5.0), 5),
        (QUARANTINE, Budget::Samples(0), 0),
    ] {
        let message = refusal(on, budget, some, false).expect("too many");
        assert!(message.contains(&format!("of 100, expected at most {most}")), "{message}");
        assert!(message.contains("(--bad-sample-budget): row-"), "{message}");
        assert!(message.contains("try mending the data"), "{message}");
        assert_eq!(message.contains("quarantine.jsonl"), on == QUARANTINE, "{message}");
    }
    // However large the budget: with no good sample there is nothing to train on.
    for on in [QUARANTINE, OnBadSample::Skip] {
        let message = refusal(on, Budget::Samples(1000), |_| Some(Fault::Read), false);
        let message = message.expect("all are bad");
        assert!(message.contains("found 100 bad samples of 100, expected at most 99"), "{message}");
    }
}

#[test]
fn by_default_a_bad_sample_is_an_error_and_a_panic_always() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = |on, fault: FaultOf| {
        let sources = (Faulty::new(TRAIN, fault) as Arc<dyn Source>, common::rows(HELD_OUT));
        let result = run(with(on, Budget::Samples(30)), sources, folder.path(), false, None);
        result.map(|_| ()).expect_err("must fail").to_string()
    };
    let one = |i| (i == 77).then_some(Fault::Read);
    assert_eq!(
        error(OnBadSample::Error, one),
        "prepare: sample 77 of rows: row-77.bin: row: found 3 bytes, expected 64"
    );
    assert!(!folder.path().join("quarantine.jsonl").exists());
    let panics = |i| (i == 77).then_some(Fault::Panic);
    for on in [OnBadSample::Error, OnBadSample::Skip, QUARANTINE] {
        let message = error(on, panics);
        assert!(
            message.contains("sample 77 of rows: row-77.bin: source: panicked: planted"),
            "{message}"
        );
    }
}

#[test]
fn held_out_samples_that_are_bad_are_left_out_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // A whole batch, the first of another, the last of all.
    let fault = |i| (i < 17 || i == 39).then_some(Fault::Read);
    let good: Vec<u32> = (17..39).collect();
    let rest = Subset::of_rows(common::rows(HELD_OUT), good, "rest").expect("there are some");
    let run = |held_out: Arc<dyn Source>, name: &str| {
        let config = RunConfig { batch_size: 16, ..with(QUARANTINE, Budget::Samples(30)) };
        let sources = (common::rows(TRAIN), held_out);
        run(config, sources, &folder.path().join(name), false, None).expect("runs")
    };
    let (found, expected) =
        (run(Faulty::new(HELD_OUT, fault), "faulty"), run(Arc::new(rest), "rest"));
    for (found, expected) in found.epochs.iter().zip(&expected.epochs) {
        assert_eq!((found.left_out, expected.left_out), (18, 0));
        let (a, b) = (found.val_loss.expect("validated"), expected.val_loss.expect("validated"));
        assert!((a - b).abs() < 1e-5, "{a} {b}");
        assert_eq!(found.val_accuracy, expected.val_accuracy);
    }
    assert_eq!(found.summary.parameter_hash, expected.summary.parameter_hash);
}
