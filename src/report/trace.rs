//! The trace of a run for Chrome's `about:tracing` and for Perfetto (`trace.json`, the array form of the Trace Event
//! Format): every thread, slot and dispatch of its first steps on one clock, that of the host, from the beginning of the
//! trace on.
//!
//! Spans are written as they end, so memory stays as it is, and the file has at most [`EVENTS_MAX`] events. An array that
//! was never closed, as of a run that was killed, is read by both tools.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result, Stage};

/// The file in the run folder.
pub const TRACE: &str = "trace.json";

/// Events of a trace at most: some 100 MB, and about what a viewer opens without trouble.
pub const EVENTS_MAX: u64 = 500_000;

/// Where a span is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Track {
    /// The calling thread.
    Thread,
    /// From the submission of a pass over a slot until its result is entered into the books. Several overlap, each over a
    /// slot of its own.
    Passes(usize),
    /// A slot of the ring.
    Slot(usize),
    /// The device: its passes, as its own clock tells them.
    Device,
    /// The device: dispatches. Those that run at the same time are in different lanes.
    Dispatches(usize),
}

impl Track {
    /// Numbers of process and thread, by which viewers group.
    fn ids(self, threads: &mut BTreeMap<String, u64>) -> (u64, u64, Option<String>) {
        let named = |name: &str| Some(name.to_string());
        match self {
            Track::Thread => {
                let thread = std::thread::current();
                let name = thread.name().unwrap_or("a thread without a name");
                let next = threads.len() as u64 + 1;
                let new = (!threads.contains_key(name)).then(|| name.to_string());
                (1, *threads.entry(name.to_string()).or_insert(next), new)
            }
            Track::Slot(index) => (2, index as u64, Some(format!("slot {index}"))),
            Track::Passes(slot) => (3, slot as u64, Some(format!("passes over slot {slot}"))),
            Track::Device => (4, 0, named("passes")),
            Track::Dispatches(0) => (4, 1, named("dispatches")),
            Track::Dispatches(lane) => {
                (4, 1 + lane as u64, Some(format!("dispatches {}", lane + 1)))
            }
        }
    }
}

/// Names of the groups of tracks.
const PROCESSES: [(u64, &str); 4] =
    [(1, "threads"), (2, "slots"), (3, "passes, as the host sees them"), (4, "device")];

/// Writes a trace. Shared by all threads of a run.
#[derive(Debug)]
pub struct Tracer {
    began: Instant,
    steps: u64,
    over: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: Option<BufWriter<File>>,
    events: u64,
    left_out: u64,
    threads: BTreeMap<String, u64>,
    named: std::collections::BTreeSet<(u64, u64)>,
    /// Since when each slot is in its state.
    slots: BTreeMap<usize, Instant>,
    failed: Option<std::io::Error>,
}

impl Tracer {
    /// A trace of the first `steps` steps of a run, in its folder.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(dir: &Path, steps: u64) -> Result<Self> {
        let path = dir.join(TRACE);
        std::fs::create_dir_all(dir).map_err(|e| unwritable(&path, e))?;
        let file = File::create(&path).map_err(|e| unwritable(&path, e))?;
        let mut inner = Inner {
            file: Some(BufWriter::new(file)),
            events: 0,
            left_out: 0,
            threads: BTreeMap::new(),
            named: Default::default(),
            slots: BTreeMap::new(),
            failed: None,
        };
        for (pid, name) in PROCESSES {
            inner.meta("process_name", pid, 0, name);
        }
        let (began, over) = (Instant::now(), AtomicBool::new(false));
        Ok(Self { began, steps, over, inner: Mutex::new(inner) })
    }

    /// Steps to be traced.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether nothing more is traced.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A span that has ended.
    pub fn span(&self, track: Track, name: &str, from: Instant, to: Instant, args: Value) {
        let [from_us, to_us] = [from, to].map(|at| self.us(at));
        self.span_us(track, name, from_us, to_us, args);
    }

    /// As [`Tracer::span`], in microseconds since the beginning of the trace.
    pub fn span_us(&self, track: Track, name: &str, from_us: f64, to_us: f64, args: Value) {
        if self.is_over() {
            return;
        }
        let inner = &mut *self.inner();
        let (pid, tid) = inner.place(track);
        let (ts, end) = (rounded(from_us), rounded(to_us.max(from_us)));
        inner.event(&Event { name, ph: "X", pid, tid, ts, dur: Some(rounded(end - ts)), args });
    }

    /// Numbers that change: shown as a graph.
    pub fn counter(&self, name: &str, values: Value) {
        if self.is_over() {
            return;
        }
        let ts = rounded(self.us(Instant::now()));
        self.inner().event(&Event { name, ph: "C", pid: 3, tid: 0, ts, dur: None, args: values });
    }

    /// A slot leaves the state that it was in since its last change, or since the beginning of the trace.
    pub fn slot(&self, index: usize, state: &str, args: Value) {
        let now = Instant::now();
        let since = self.inner().slots.insert(index, now).unwrap_or(self.began);
        self.span(Track::Slot(index), state, since, now, args);
    }

    /// What somebody should know about the clocks, as a property of the device's tracks.
    pub fn label(&self, text: &str) {
        let event =
            json!({"name": "process_labels", "ph": "M", "pid": 4, "args": {"labels": text}});
        self.inner().event(&event);
    }

    /// Microseconds from the beginning of the trace.
    pub fn us(&self, at: Instant) -> f64 {
        match at.checked_duration_since(self.began) {
            Some(after) => micros(after),
            None => -micros(self.began - at),
        }
    }

    /// Ends the trace; what comes later is not in it.
    ///
    /// # Errors
    /// When the disk was full or failed.
    pub fn finish(&self) -> Result<()> {
        if self.over.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let inner = &mut *self.inner();
        if inner.left_out > 0 {
            let text = format!("{} events left out after {EVENTS_MAX}", inner.left_out);
            inner.events = 0;
            inner.event(
                &json!({"name": "process_labels", "ph": "M", "pid": 3, "args": {"labels": text}}),
            );
        }
        let end = |mut file: BufWriter<File>| file.write_all(b"\n]\n").and_then(|()| file.flush());
        let written = inner.file.take().map_or(Ok(()), end);
        match inner.failed.take().map_or(written, Err) {
            Ok(()) => Ok(()),
            Err(error) => Err(unwritable(Path::new(TRACE), error)),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // A failure was told by whoever finished the trace; here nobody listens.
        let _ = self.finish();
    }
}

#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    ph: &'a str,
    pid: u64,
    tid: u64,
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    args: Value,
}

impl Inner {
    fn place(&mut self, track: Track) -> (u64, u64) {
        let (pid, tid, name) = track.ids(&mut self.threads);
        if let Some(name) = name
            && self.named.insert((pid, tid))
        {
            self.meta("thread_name", pid, tid, &name);
        }
        (pid, tid)
    }

    fn meta(&mut self, what: &str, pid: u64, tid: u64, name: &str) {
        self.event(
            &json!({"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}),
        );
    }

    /// Writes an event. After a failure, or too many of them, nothing is written any more.
    fn event(&mut self, event: &impl Serialize) {
        if self.events == EVENTS_MAX {
            self.left_out += 1;
            return;
        }
        let Some(file) = &mut self.file else { return };
        let separator: &[u8] = if self.events == 0 && self.left_out == 0 { b"[\n" } else { b",\n" };
        self.events += 1;
        let written = file
            .write_all(separator)
            .and_then(|()| serde_json::to_writer(&mut *file, event).map_err(Into::into));
        if let Err(error) = written {
            (self.file, self.failed) = (None, Some(error));
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 * 1e-3
}

/// To whole nanoseconds: rounding keeps what lies within something else within it.
fn rounded(us: f64) -> f64 {
    (us * 1e3).round() / 1e3
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::new(Stage::Checkpoint, ErrorKind::Checkpoint, path.display(), "cannot be written")
        .hint("leaving out --trace, or more room on the disk")
        .caused_by(error)
}

/// Spans of the device, put into lanes so that none overlaps another one of its lane.
pub(crate) struct Dispatched<'a> {
    /// Its name.
    pub name: &'a str,
    /// Microseconds since the beginning of the trace.
    pub from_us: f64,
    /// See `from_us`.
    pub to_us: f64,
}

impl Tracer {
    /// Writes a pass of the device and its dispatches; `pass` counts passes from 0.
    pub(crate) fn device_pass(&self, name: &str, pass: u64, dispatches: &[Dispatched<'_>]) {
        let from_us = dispatches.iter().map(|d| d.from_us).fold(f64::INFINITY, f64::min);
        let to_us = dispatches.iter().map(|d| d.to_us).fold(f64::NEG_INFINITY, f64::max);
        if !from_us.is_finite() || !to_us.is_finite() {
            return;
        }
        self.span_us(Track::Device, name, from_us, to_us, json!({ "pass": pass }));
        let mut lanes: Vec<f64> = Vec::new();
        for dispatch in dispatches {
            let free = lanes.iter().position(|&end| end <= dispatch.from_us);
            let lane = free.unwrap_or(lanes.len());
            if lane == lanes.len() {
                lanes.push(0.0);
            }
            lanes[lane] = dispatch.to_us;
            let track = Track::Dispatches(lane);
            let args = json!({ "pass": pass });
            self.span_us(track, dispatch.name, dispatch.from_us, dispatch.to_us, args);
        }
    }

    /// Writes what a worker did with a chunk of a batch, and within it the sums over its samples one after the other, in
    /// the order of the data.
    pub(crate) fn chunk(
        &self,
        batch: u64,
        samples: usize,
        [from, to]: [Instant; 2],
        parts: [Duration; 4],
    ) {
        let args = json!({ "batch": batch, "samples": samples });
        self.span(Track::Thread, "fill", from, to, args);
        let mut at = from;
        for (name, part) in ["read", "decode", "augment", "write"].into_iter().zip(parts) {
            // The parts are estimates, and together may be a little longer than the whole.
            let end = to.min(at + part);
            if end > at {
                self.span(Track::Thread, name, at, end, Value::Object(Map::new()));
            }
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(dir: &Path) -> Vec<Value> {
        let text = std::fs::read(dir.join(TRACE)).expect("a trace");
        serde_json::from_slice(&text).expect("an array of JSON")
    }

    #[test]
    fn what_comes_too_late_is_not_in_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tracer = Tracer::create(dir.path(), 3).expect("opens");
        let now = Instant::now();
        tracer.span(
            Track::Thread,
            "a \"name\"\n",
            now,
            now + Duration::from_micros(7),
            json!({"n": 1}),
        );
        tracer.slot(2, "fill", json!({}));
        tracer.finish().expect("writes");
        tracer.span(Track::Thread, "late", now, now, json!({}));
        tracer.finish().expect("nothing to do");
        let events = events(dir.path());
        let spans: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
        assert_eq!(spans.len(), 2);
        assert_eq!((&spans[0]["name"], &spans[0]["dur"]), (&json!("a \"name\"\n"), &json!(7.0)));
        assert_eq!((&spans[1]["pid"], &spans[1]["tid"]), (&json!(2), &json!(2)));
    }

    #[test]
    fn the_file_stays_bounded() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tracer = Tracer::create(dir.path(), 3).expect("opens");
        tracer.inner().events = EVENTS_MAX - 2;
        for _ in 0..5 {
            tracer.counter("queue", json!({"full": 1}));
        }
        tracer.finish().expect("writes");
        let events = events(dir.path());
        assert_eq!(events.len(), PROCESSES.len() + 2 + 1);
        let last = events.last().expect("the label");
        assert_eq!(last["args"]["labels"], format!("3 events left out after {EVENTS_MAX}"));
    }

    #[test]
    fn dispatches_that_overlap_are_in_lanes() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let tracer = Tracer::create(dir.path(), 3).expect("opens");
        let dispatch = |name, from_us, to_us| Dispatched { name, from_us, to_us };
        tracer.device_pass(
            "train",
            5,
            &[dispatch("a", 1.0, 4.0), dispatch("b", 2.0, 3.0), dispatch("c", 4.0, 6.0)],
        );
        tracer.finish().expect("writes");
        let events = events(dir.path());
        let tid = |name: &str| {
            events.iter().find(|e| e["name"] == name).expect("is there")["tid"].clone()
        };
        assert_eq!([tid("a"), tid("b"), tid("c")], [json!(1), json!(2), json!(1)]);
    }
}
