//! A source is told of each of its samples once the step that used it was applied.

use std::sync::{Arc, Mutex};

use inflight::batch::SampleSpec;
use inflight::source::{Sample, Source, SourceInfo};
use inflight::{Result, RunConfig, Trainer};

use crate::common::{Rows, config, model};

/// What happened, in order.
#[derive(Clone, Debug, PartialEq)]
enum Happened {
    Report(u64),
    Applied(&'static str, Vec<usize>),
}

type Log = Arc<Mutex<Vec<Happened>>>;

/// Writes down what it is told.
struct Told {
    inner: Arc<Rows>,
    name: &'static str,
    log: Log,
}

impl Source for Told {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.inner.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.inner.info()
    }

    fn applied(&self, indices: &[usize]) {
        self.log.lock().unwrap().push(Happened::Applied(self.name, indices.to_vec()));
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        self.inner.read(index, scratch)
    }
}

/// Trains on `len` samples, of which `fails_at` cannot be read, and returns what happened.
fn train(len: usize, fails_at: Option<usize>, config: RunConfig) -> (Vec<Happened>, Result<()>) {
    let log = Log::default();
    let rows = Arc::new(Rows { fails_at, ..Rows::new(len) });
    let train = Arc::new(Told { inner: rows, name: "train", log: log.clone() });
    let held_out = Told { inner: Arc::new(Rows::new(5)), name: "validation", log: log.clone() };
    let trainer = Trainer::builder(model(train.spec()), train)
        .validation(Arc::new(held_out))
        .config(RunConfig { shuffle: false, ..config })
        .start()
        .expect("the run starts");
    let reports = log.clone();
    trainer.on_step(move |report| reports.lock().unwrap().push(Happened::Report(report.step)));
    let end = pollster::block_on(trainer.fit()).map(|_| ());
    drop(trainer);
    (log.lock().unwrap().clone(), end)
}

#[test]
fn each_sample_once_in_order_after_the_report_of_its_step() {
    let config = RunConfig { batch_size: 4, epochs: Some(2), steps: None, ..config("cpu") };
    let (log, end) = train(10, None, config);
    end.expect("the run ends well");
    let applied = |name, range: std::ops::Range<usize>| Happened::Applied(name, range.collect());
    let epoch = |first| {
        [
            Happened::Report(first),
            applied("train", 0..4),
            Happened::Report(first + 1),
            applied("train", 4..8),
            Happened::Report(first + 2),
            applied("train", 8..10),
            applied("validation", 0..4),
            applied("validation", 4..5),
        ]
    };
    assert_eq!(log, [epoch(1), epoch(4)].concat());
}

#[test]
fn the_batches_of_an_accumulated_step_are_told_of_together() {
    let config = RunConfig {
        batch_size: 2,
        accumulate: 3,
        epochs: Some(1),
        steps: None,
        eval: false,
        ..config("cpu")
    };
    let (log, end) = train(8, None, config);
    end.expect("the run ends well");
    let expected = [
        Happened::Report(1),
        Happened::Applied("train", (0..6).collect()),
        Happened::Report(2),
        Happened::Applied("train", vec![6, 7]),
    ];
    assert_eq!(log, expected);
}

#[test]
fn samples_of_a_step_that_never_came_are_not_told_of() {
    let config = RunConfig {
        batch_size: 2,
        accumulate: 2,
        epochs: Some(1),
        steps: None,
        eval: false,
        ..config("cpu")
    };
    // The second batch of the second step cannot be read.
    let (log, end) = train(8, Some(6), config);
    end.expect_err("sample 6 is bad");
    let told = |happened: &Happened| match happened {
        Happened::Applied(_, indices) => indices.clone(),
        Happened::Report(_) => Vec::new(),
    };
    let told: Vec<usize> = log.iter().flat_map(told).collect();
    // Steps in flight when the error came may or may not have been finished; none after it was begun.
    assert!(told.is_empty() || told == [0, 1, 2, 3], "{log:?}");
}
