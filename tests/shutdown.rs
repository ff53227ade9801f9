//! However a run ends, its threads end too, and every promise is answered.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Rows, config, devices, model, rows};
use crossbeam_channel::RecvTimeoutError;
use inflight::source::Source;
use inflight::{ErrorKind, RunConfig, Trainer};

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
        let patience = Duration::from_secs(10);
        if fails {
            late.recv_timeout(patience).expect("an answer").expect_err("the failure of the run");
        }
        assert_eq!(late.recv_timeout(patience).err(), Some(RecvTimeoutError::Disconnected));
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
