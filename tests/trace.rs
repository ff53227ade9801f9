//! The trace of a run: it can be read, spans nest on every track, dispatches lie within their pass and passes within their
//! step, on one clock; and it changes nothing.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{config, devices, model, rows};
use inflight::report::trace::{EVENTS_MAX, TRACE};
use inflight::train::event::Summary;
use inflight::{RunConfig, Trainer};
use serde_json::Value;

const STEPS: u64 = 5;

/// A run of more steps than are traced, with a validation after the fourth step.
fn run(device: &str, dir: Option<&Path>, sync: bool) -> Summary {
    let (source, held_out) = (rows(64), rows(40));
    let steps = Some(12);
    let config = RunConfig { steps, sync, slots: None, ..config(device) };
    let mut builder = Trainer::builder(model(source.spec()), source).config(config);
    builder = builder.validation(held_out);
    if let Some(dir) = dir {
        builder = builder.run_dir(dir).trace(STEPS);
    }
    pollster::block_on(builder.start().expect("starts").fit()).expect("a run")
}

struct Span<'a> {
    name: &'a str,
    /// In nanoseconds, as whole numbers.
    from: i64,
    to: i64,
    args: &'a Value,
}

fn spans(events: &[Value]) -> BTreeMap<(u64, u64), Vec<Span<'_>>> {
    let ns = |us: &Value| (us.as_f64().expect("a time") * 1e3).round() as i64;
    let mut tracks: BTreeMap<_, Vec<Span<'_>>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let id = |key: &str| event[key].as_u64().expect("a number");
        let from = ns(&event["ts"]);
        let name = event["name"].as_str().expect("a name");
        let span = Span { name, from, to: from + ns(&event["dur"]), args: &event["args"] };
        tracks.entry((id("pid"), id("tid"))).or_default().push(span);
    }
    tracks
}

/// Of two spans of a track, one lies within the other, or they do not overlap.
fn assert_nested(id: (u64, u64), spans: &mut [Span<'_>]) {
    spans.sort_by_key(|span| (span.from, -span.to));
    let mut open: Vec<(&str, i64)> = Vec::new();
    for span in spans {
        while open.last().is_some_and(|(_, to)| *to <= span.from) {
            open.pop();
        }
        if let Some((outer, to)) = open.last() {
            assert!(span.to <= *to, "{} reaches out of {outer} on track {id:?}", span.name);
        }
        open.push((span.name, span.to));
    }
}

fn check(device: &str, sync: bool) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let traced = run(device, Some(dir.path()), sync);
    let plain = run(device, None, sync);
    assert_eq!(traced.parameter_hash, plain.parameter_hash, "{device}: a trace changes nothing");
    let text = std::fs::read(dir.path().join(TRACE)).expect("a trace");
    let events: Vec<Value> = serde_json::from_slice(&text).expect("an array of JSON");
    assert!((events.len() as u64) < EVENTS_MAX);
    let mut tracks = spans(&events);
    tracks.iter_mut().for_each(|(&id, spans)| assert_nested(id, spans));
    let pass = |span: &Span<'_>| span.args["pass"].as_u64().expect("a pass");
    let by_pass = |of: &dyn Fn(u64, u64) -> bool| -> BTreeMap<u64, &Span<'_>> {
        let tracks = tracks.iter().filter(|((pid, tid), _)| of(*pid, *tid));
        tracks.flat_map(|(_, spans)| spans).map(|span| (pass(span), span)).collect()
    };
    // The host's view of each pass, which has a track for each slot, and the device's.
    let host = by_pass(&|pid, _| pid == 3);
    let device_passes = by_pass(&|pid, tid| (pid, tid) == (4, 0));
    let steps = host.values().filter(|span| span.name.starts_with("step ")).count();
    assert_eq!(steps as u64, STEPS, "{device}");
    // Four steps are an epoch of 64 samples; three batches of 40 follow.
    assert_eq!(host.len(), 8, "{device}: with the validation after the fourth step");
    assert_eq!(host.keys().collect::<Vec<_>>(), device_passes.keys().take(8).collect::<Vec<_>>());
    let within = |inner: &Span<'_>, outer: &Span<'_>| {
        let lies = outer.from <= inner.from && inner.to <= outer.to;
        assert!(
            lies,
            "{device}: {} {}..{} is not within {} {}..{}",
            inner.name, inner.from, inner.to, outer.name, outer.from, outer.to
        );
    };
    let mut dispatches: BTreeMap<u64, u64> = BTreeMap::new();
    for (&(pid, tid), spans) in &tracks {
        for span in spans.iter().filter(|_| pid == 4 && tid > 0) {
            within(span, device_passes[&pass(span)]);
            *dispatches.entry(pass(span)).or_default() += 1;
        }
    }
    for (pass, host) in &host {
        within(device_passes[pass], host);
        // Convolution, norm, pooling, linear layers: more than a few, forward and backward.
        let least = if host.name.starts_with("step ") { 20 } else { 8 };
        assert!(
            dispatches[pass] >= least,
            "{device}: {} dispatches in {}",
            dispatches[pass],
            host.name
        );
    }
    // Each slot is in one state after the other, and each batch that was traced went all the way.
    let states: Vec<&Span<'_>> =
        tracks.iter().filter(|((pid, _), _)| *pid == 2).flat_map(|(_, spans)| spans).collect();
    for state in ["fill", "wait for the device", "on the device", "empty"] {
        let count = states.iter().filter(|span| span.name == state).count();
        assert!(count >= 5, "{device}: {count} times {state}");
    }
    let names: Vec<&str> = events
        .iter()
        .filter(|event| event["name"] == "thread_name" && event["pid"] == 1)
        .map(|event| event["args"]["name"].as_str().expect("a name"))
        .collect();
    // One thread of the pool may have done all there was to do.
    assert!(names.contains(&"device"), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("prepare-")), "{names:?}");
}

#[test]
fn dispatches_lie_within_their_passes_and_those_within_their_steps() {
    for device in devices() {
        check(device, false);
        check(device, true);
    }
}
