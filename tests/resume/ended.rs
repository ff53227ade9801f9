//! Runs that end before they are through: what they leave is exact, and goes on as if nothing had been.

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use inflight::batch::{SampleSpec, Slot};
use inflight::executor::{DeviceInfo, Done, Executor, Wants};
use inflight::graph::Arena;
use inflight::graph::plan::Pass;
use inflight::report::folder::RunLock;
use inflight::report::trace::Tracer;
use inflight::source::{DataConfig, Sample, Source, SourceInfo, Stream, StreamFormat};
use inflight::train::TrainerBuilder;
use inflight::train::checkpoint::{self, Checkpoint};
use inflight::train::event::Summary;
use inflight::{Result, RunConfig, Trainer, device};

use super::common::{Rows, config, devices, model, rows};

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

/// Stops a run in the middle of its third step, the rest of which comes or never does.
fn stopped_within_third_step(rest_comes: bool, dir: &Path) -> Summary {
    let source = Arc::new(Gated {
        rows: Rows::new(300),
        at: IN_THIRD_STEP,
        is_open: Mutex::new(false),
        opened: Condvar::new(),
    });
    let (submitted, passes) = channel();
    let watched = builder(source.clone(), accumulated(), dir).on_device(|program, slots| {
        Ok(Box::new(Watched { device: device::open("cpu", program, slots)?, submitted }))
    });
    let trainer = watched.start().expect("starts");
    let summary = trainer.fit();
    for pass in 0..IN_THIRD_STEP / 16 {
        passes.recv().unwrap_or_else(|_| panic!("pass {pass} is submitted"));
    }
    assert!(trainer.commands().stop());
    if rest_comes {
        source.open();
    }
    let summary = pollster::block_on(summary).expect("ends well");
    source.open();
    summary
}

#[test]
fn a_stop_within_an_accumulated_step_finishes_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, part) = (folder.path().join("whole"), folder.path().join("part"));
    let expected = fit(builder(rows(300), accumulated(), &whole)).expect("succeeds");
    let summary = stopped_within_third_step(true, &part);
    assert_eq!((summary.steps, summary.stopped), (3, true), "the step under way is finished");
    assert_same_bits(&part, &whole, 3);
    let latest = checkpoint::latest(&part).expect("a checkpoint").checkpoint;
    let resumed = fit(builder(rows(300), accumulated(), &part).resume(latest)).expect("succeeds");
    assert_eq!(resumed.parameter_hash, expected.parameter_hash);
    assert_same_bits(&part, &whole, 5);
}

/// Takes the half minute that a stopped run waits.
#[test]
fn a_stop_within_a_step_whose_rest_never_comes_takes_it_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, part) = (folder.path().join("whole"), folder.path().join("part"));
    fit(builder(rows(300), accumulated(), &whole)).expect("succeeds");
    let summary = stopped_within_third_step(false, &part);
    assert_eq!((summary.steps, summary.stopped), (2, true), "the step under way never was");
    assert_same_bits(&part, &whole, 2);
    let latest = checkpoint::latest(&part).expect("a checkpoint").checkpoint;
    fit(builder(rows(300), accumulated(), &part).resume(latest)).expect("succeeds");
    assert_same_bits(&part, &whole, 5);
}

#[test]
fn a_sample_that_fails_within_an_accumulated_step_costs_that_step_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let failing = || -> Arc<dyn Source> {
        Arc::new(Rows { fails_at: Some(IN_THIRD_STEP), ..Rows::new(300) })
    };
    let failed = |builder: TrainerBuilder| {
        let error = fit(builder).expect_err("a sample fails").to_string();
        assert!(error.contains(&format!("sample {IN_THIRD_STEP}")), "{error}");
    };
    for device in devices() {
        let path = |name: &str| folder.path().join(device).join(name);
        let (whole, part, again) = (path("whole"), path("part"), path("again"));
        let config = RunConfig { device: device.into(), ..accumulated() };
        let expected = fit(builder(rows(300), config.clone(), &whole)).expect("succeeds");
        let config = RunConfig { checkpoint_every: 100.into(), ..config };
        failed(builder(failing(), config.clone(), &part));
        assert_same_bits(&part, &whole, 2);
        // No step comes before the one that fails, and the folder has no checkpoint yet.
        failed(builder(failing(), config.clone(), &again).resume(checkpoint_of(&part, 2)));
        assert_same_bits(&again, &whole, 2);
        let resumed = builder(rows(300), config, &again).resume(checkpoint_of(&again, 2));
        assert_eq!(fit(resumed).expect("succeeds").parameter_hash, expected.parameter_hash);
        assert_same_bits(&again, &whole, 5);
    }
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
