//! However a run ends, its threads end too, and every promise is answered.

mod common;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{Rows, config, devices, model, rows};
use crossbeam_channel::RecvTimeoutError;
use inflight::batch::SampleSpec;
use inflight::quarantine::{Budget, OnBadSample};
use inflight::sampler::SamplingConfig;
use inflight::source::{ENDLESS, Sample, Source, SourceInfo};
use inflight::{Error, ErrorKind, Result, RunConfig, Trainer};

/// Far longer than anything here takes, so that a hang fails a test instead of stopping it.
const PATIENCE: Duration = Duration::from_secs(20);

fn trainer(source: Arc<dyn Source>, config: RunConfig) -> Trainer {
    Trainer::builder(model(source.spec()), source).config(config).start().expect("the run starts")
}

#[test]
fn dropping_at_any_moment_joins_all_threads() {
    for device in devices() {
        for slots in [2, 3, 5] {
            for workers in [1, 2] {
                for steps in [0, 1, 2, 7] {
                    let config = RunConfig { slots: Some(slots), workers, ..config(device) };
                    let trainer = trainer(rows(200), config);
                    let promises: Vec<_> = (0..steps).map(|_| trainer.step()).collect();
                    if let Some(first) = promises.into_iter().next() {
                        pollster::block_on(first).expect("the first step succeeds");
                    }
                    drop(trainer);
                }
            }
        }
    }
}

#[test]
fn a_broken_promise_is_answered_not_left_hanging() {
    let trainer = trainer(rows(100), config("cpu"));
    let promises: Vec<_> = (0..1000).map(|_| trainer.step()).collect();
    let kept = promises.into_iter().filter(|_| true).map(pollster::block_on);
    let reports: Vec<_> = kept.map(|answer| answer.expect("no failure")).collect();
    assert_eq!(reports.iter().filter(|report| report.is_some()).count(), 12);
    assert!(reports[12..].iter().all(Option::is_none), "nothing after the last step");
}

#[test]
fn a_bad_sample_fails_the_run_with_its_number() {
    let source = Rows { fails_at: Some(77), ..Rows::new(100) };
    let trainer = trainer(Arc::new(source), config("cpu"));
    let events = trainer.events();
    let error = pollster::block_on(trainer.fit()).expect_err("sample 77 is bad");
    assert_eq!(error.kind(), ErrorKind::Data);
    let text = error.to_string();
    assert!(text.contains("sample 77") && text.contains("rows.bin"), "{text}");
    let last = events.last().expect("the stream tells of the failure");
    assert_eq!(last.expect_err("an error ends it").to_string(), text);
    let late = pollster::block_on(trainer.step()).expect_err("a failed run keeps failing");
    assert_eq!(late.to_string(), text);
}

#[test]
fn a_panicking_source_is_an_error_with_the_sample() {
    let source = Rows { panics_at: Some(31), ..Rows::new(100) };
    let trainer = trainer(Arc::new(source), config("cpu"));
    let error = pollster::block_on(trainer.fit()).expect_err("sample 31 panics");
    let text = error.to_string();
    assert!(text.contains("sample 31") && text.contains("planted panic"), "{text}");
}

/// What a source is asked, beside for its samples.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Origin,
    Reaches,
    Announce,
}

/// Rows of which sample 31 makes one question panic.
struct Panicking {
    rows: Rows,
    over: Asked,
}

impl Panicking {
    fn panic(&self, asked: Asked, indices: &[usize]) {
        assert!(asked != self.over || !indices.contains(&31), "planted panic");
    }
}

impl Source for Panicking {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.rows.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.rows.info()
    }

    fn origin(&self, index: usize) -> Option<String> {
        self.panic(Asked::Origin, &[index]);
        None
    }

    fn reaches(&self, indices: &[usize]) -> bool {
        self.panic(Asked::Reaches, indices);
        true
    }

    fn announce(&self, indices: &[usize]) {
        self.panic(Asked::Announce, indices);
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        self.rows.read(index, scratch)
    }
}

/// Rows that are read ahead.
struct Waiting(Rows);

impl Source for Waiting {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.0.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.0.info()
    }

    fn waits(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        self.0.read(index, scratch)
    }
}

/// The error that a run ends with.
fn failure_of(trainer: &Trainer) -> Error {
    let events = trainer.queue(100);
    let _finished = trainer.fit();
    loop {
        match events.recv_timeout(PATIENCE) {
            Ok(event) => {
                if let Err(error) = event {
                    return error;
                }
            }
            Err(end) => panic!("found no error: {end}"),
        }
    }
}

#[test]
fn a_panic_over_where_a_bad_sample_is_from_is_an_error_with_the_sample() {
    for on_bad_sample in [OnBadSample::Error, OnBadSample::Skip] {
        for workers in [1, 4] {
            let rows = Rows { fails_at: Some(31), ..Rows::new(100) };
            let bad_sample_budget = Budget::Samples(5);
            let sampling =
                SamplingConfig { on_bad_sample, bad_sample_budget, ..Default::default() };
            let config = RunConfig { workers, sampling, ..config("cpu") };
            let trainer = trainer(Arc::new(Panicking { rows, over: Asked::Origin }), config);
            let text = failure_of(&trainer).to_string();
            assert!(text.contains("sample 31") && text.contains("planted panic"), "{text}");
        }
    }
}

#[test]
fn a_panic_over_what_comes_next_is_an_error_and_no_end_of_the_data() {
    for over in [Asked::Reaches, Asked::Announce] {
        for workers in [1, 4] {
            let source = Arc::new(Panicking { rows: Rows::new(100), over });
            // What is held out waits, so that batches are announced.
            let trainer = Trainer::builder(model(source.spec()), source)
                .validation(Arc::new(Waiting(Rows::new(20))))
                .config(RunConfig { workers, ..config("cpu") })
                .start()
                .expect("the run starts");
            let text = failure_of(&trainer).to_string();
            assert!(text.contains("planted panic"), "{over:?}: {text}");
        }
    }
}

/// A stream whose writer sends a batch of 16 once the one before is applied.
struct Pipe {
    rows: Rows,
    /// How many samples have come, and whether nobody wants more.
    sent: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Source for Pipe {
    fn len(&self) -> usize {
        ENDLESS
    }

    fn spec(&self) -> &SampleSpec {
        self.rows.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.rows.info()
    }

    fn reaches(&self, indices: &[usize]) -> bool {
        let last = indices.iter().copied().max().unwrap_or(0);
        let sent = self.sent.lock().expect("no panic");
        let missing = |(sent, closed): &mut (usize, bool)| *sent <= last && !*closed;
        self.changed.wait_while(sent, missing).expect("no panic").0 > last
    }

    fn applied(&self, indices: &[usize]) {
        self.sent.lock().expect("no panic").0 += indices.len();
        self.changed.notify_all();
    }

    fn close(&self) {
        self.sent.lock().expect("no panic").1 = true;
        self.changed.notify_all();
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        self.rows.read(index, scratch)
    }
}

#[test]
fn a_stream_that_waits_for_its_step_goes_on_where_what_is_held_out_is_read_ahead() {
    let sent = Mutex::new((16, false));
    let pipe = Pipe { rows: Rows::new(0), sent, changed: Condvar::new() };
    let trainer = Trainer::builder(model(pipe.spec()), Arc::new(pipe))
        .validation(Arc::new(Waiting(Rows::new(20))))
        .config(RunConfig { steps: Some(3), ..config("cpu") })
        .start()
        .expect("the run starts");
    let events = trainer.queue(100);
    let finished = trainer.fit();
    loop {
        match events.recv_timeout(PATIENCE) {
            Ok(event) => drop(event.expect("no failure")),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => panic!("the run waits for what waits for it"),
        }
    }
    assert_eq!(pollster::block_on(finished).expect("the run succeeds").steps, 3);
}

#[test]
fn a_label_out_of_range_never_reaches_the_device() {
    let source = Rows { label_at: Some((5, 4)), ..Rows::new(100) };
    let trainer = trainer(Arc::new(source), config("cpu"));
    let error = pollster::block_on(trainer.fit()).expect_err("label 4 of 4 classes");
    let text = error.to_string();
    assert!(text.contains("sample 5") && text.contains('4'), "{text}");
}

#[test]
fn who_listens_after_the_end_is_told_so_at_once() {
    let failing: Arc<dyn Source> = Arc::new(Rows { fails_at: Some(7), ..Rows::new(100) });
    for (source, fails) in [(rows(100), false), (failing, true)] {
        let trainer = trainer(source, config("cpu"));
        assert_eq!(pollster::block_on(trainer.fit()).is_err(), fails);
        let late = trainer.queue(2);
        if fails {
            late.recv_timeout(PATIENCE).expect("an answer").expect_err("the failure of the run");
        }
        assert_eq!(late.recv_timeout(PATIENCE).err(), Some(RecvTimeoutError::Disconnected));
    }
}

#[test]
fn a_dropped_stream_does_not_hold_the_run_up() {
    let trainer = trainer(rows(100), config("cpu"));
    let mut events = trainer.events();
    drop(trainer.queue(1));
    let finished = trainer.fit();
    events.next().expect("a first event").expect("no failure");
    drop(events);
    assert_eq!(pollster::block_on(finished).expect("the run succeeds").steps, 12);
}
