//! The spans and events that a program sees that subscribes to `tracing`.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::{config, model, rows};
use inflight::{RunConfig, Trainer};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Counts what it is told, by name and the thread's.
#[derive(Clone, Default)]
struct Counts {
    ids: Arc<AtomicU64>,
    spans: Arc<Mutex<BTreeMap<(String, String), usize>>>,
    events: Arc<Mutex<BTreeMap<u64, usize>>>,
    open: Arc<AtomicU64>,
}

impl Subscriber for Counts {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("inflight")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let thread = std::thread::current()
            .name()
            .unwrap_or("")
            .trim_end_matches(char::is_numeric)
            .to_string();
        let name = (attributes.metadata().name().to_string(), thread);
        *self.spans.lock().expect("no panic").entry(name).or_default() += 1;
        self.open.fetch_add(1, Ordering::Relaxed);
        Id::from_u64(1 + self.ids.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let fields = event.metadata().fields().len() as u64;
        *self.events.lock().expect("no panic").entry(fields).or_default() += 1;
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn try_close(&self, _: Id) -> bool {
        self.open.fetch_sub(1, Ordering::Relaxed);
        true
    }
}

#[test]
fn a_subscriber_sees_every_stage_on_its_thread() {
    let counts = Counts::default();
    tracing::subscriber::set_global_default(counts.clone()).expect("the only test here");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let source = rows(64);
    let config = RunConfig { steps: Some(12), ..config("cpu") };
    let builder = Trainer::builder(model(source.spec()), source).config(config).run_dir(dir.path());
    let trainer = builder.start().expect("starts");
    pollster::block_on(trainer.fit()).expect("a run");
    drop(trainer);
    let spans = counts.spans.lock().expect("no panic").clone();
    let count = |name: &str, thread: &str| {
        spans.get(&(name.to_string(), thread.to_string())).copied().unwrap_or(0)
    };
    assert_eq!(count("submit", "device"), 12, "{spans:?}");
    assert!(count("fill", "prepare-") >= 12, "{spans:?}");
    assert_eq!(count("end", "device"), 1, "{spans:?}");
    // At the end of each of three epochs of four steps.
    assert_eq!(count("checkpoint", "checkpoint"), 3, "{spans:?}");
    let starts: usize = spans.iter().filter(|((name, _), _)| name == "start").map(|(_, n)| n).sum();
    assert_eq!(starts, 1, "{spans:?}");
    // Of a step: message, step, loss, lr. Of an epoch: one more.
    let events = counts.events.lock().expect("no panic").clone();
    assert_eq!((events[&4], events[&5]), (12, 3), "{events:?}");
    assert_eq!(counts.open.load(Ordering::Relaxed), 0, "every span is closed");
}
