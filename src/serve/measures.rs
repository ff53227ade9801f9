//! What a server tells a Prometheus that asks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::error::{Error, Result};

/// Upper ends of the classes that times are counted in, in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Times that wait to be counted into their classes, about: each takes memory until then, and nobody may ever ask.
const WAITING_MAX: usize = 1024;

/// What is known about who registers.
static METADATA: Metadata<'static> = Metadata::new("inflight::serve", Level::INFO, None);

/// Counters and times of a server. None of them is global, so that a process may have several servers.
pub(super) struct Measures {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    tokens: Counter,
    prompt_tokens: Counter,
    left: Counter,
    running: Gauge,
    waiting: Gauge,
    step: Histogram,
    first_token: Histogram,
    next_token: Histogram,
    /// Times that were recorded since all were counted.
    uncounted: AtomicUsize,
}

impl Measures {
    pub fn new() -> Result<Self> {
        let wrong = |e| Error::config("serve", "its measures cannot be registered").caused_by(e);
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .map_err(wrong)?
            .build_recorder();
        let about = |name: &'static str, text: &'static str| {
            (KeyName::from_const_str(name), Key::from_static_name(name), text)
        };
        let counter = |name, text| {
            let (name, key, text) = about(name, text);
            recorder.describe_counter(name, None, text.into());
            recorder.register_counter(&key, &METADATA)
        };
        let gauge = |name, text| {
            let (name, key, text) = about(name, text);
            recorder.describe_gauge(name, None, text.into());
            recorder.register_gauge(&key, &METADATA)
        };
        let histogram = |name, text| {
            let (name, key, text) = about(name, text);
            recorder.describe_histogram(name, None, text.into());
            recorder.register_histogram(&key, &METADATA)
        };
        recorder.describe_counter(REQUESTS.into(), None, "answers by status".into());
        Ok(Self {
            tokens: counter("inflight_tokens_total", "tokens that were made"),
            prompt_tokens: counter("inflight_prompt_tokens_total", "tokens of prompts"),
            left: counter(
                "inflight_texts_left_total",
                "texts whose reader had gone, or whose time was over",
            ),
            running: gauge("inflight_texts_running", "texts under way"),
            waiting: gauge("inflight_texts_waiting", "texts that wait for a place"),
            step: histogram("inflight_step_seconds", "time of a step of all texts under way"),
            first_token: histogram(
                "inflight_first_token_seconds",
                "from the request to its first token",
            ),
            next_token: histogram(
                "inflight_next_token_seconds",
                "from one token of a text to the next",
            ),
            uncounted: AtomicUsize::new(0),
            handle: recorder.handle(),
            recorder,
        })
    }

    pub fn under_way(&self, running: usize, waiting: usize) {
        self.running.set(running as f64);
        self.waiting.set(waiting as f64);
    }

    pub fn stepped(&self, took: Duration, tokens: usize) {
        self.step.record(took.as_secs_f64());
        self.tokens.increment(tokens as u64);
        // The step, and what comes before each of its tokens.
        let times = 1 + tokens;
        if self.uncounted.fetch_add(times, Ordering::Relaxed) + times >= WAITING_MAX {
            self.uncounted.store(0, Ordering::Relaxed);
            self.handle.run_upkeep();
        }
    }

    pub fn first_token(&self, after: Duration) {
        self.first_token.record(after.as_secs_f64());
    }

    pub fn next_token(&self, after: Duration) {
        self.next_token.record(after.as_secs_f64());
    }

    pub fn left(&self) {
        self.left.increment(1);
    }

    pub fn prompt(&self, tokens: usize) {
        self.prompt_tokens.increment(tokens as u64);
    }

    pub fn answered(&self, status: u16) {
        let labels = vec![Label::new("status", status.to_string())];
        let key = Key::from_parts(REQUESTS, labels);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// All of them, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }
}

const REQUESTS: &str = "inflight_requests_total";

#[cfg(test)]
mod tests {
    use super::*;

    /// Times that are counted into their classes. Only the debug format tells of them without counting the rest as well.
    fn counted(measures: &Measures) -> usize {
        let told = format!("{:?}", measures.handle);
        let counts = told.split("Histogram { count: ").skip(1);
        counts
            .map(|rest| rest.split(',').next().and_then(|count| count.parse().ok()))
            .map(|count: Option<usize>| count.expect("a number"))
            .sum()
    }

    #[test]
    fn times_are_counted_though_nobody_asks() {
        let measures = Measures::new().expect("registers");
        let steps = 4 * WAITING_MAX;
        for step in 1..=steps {
            measures.stepped(Duration::from_millis(3), 1);
            measures.next_token(Duration::from_millis(4));
            if step % 50 == 0 {
                let waiting = 2 * step - counted(&measures);
                assert!(waiting <= WAITING_MAX, "{waiting} wait after {step} steps");
            }
        }
        // None was lost, and none counted twice.
        let told = measures.render();
        assert_eq!(counted(&measures), 2 * steps);
        for line in ["inflight_step_seconds_count", "inflight_next_token_seconds_count"] {
            assert!(told.lines().any(|found| found == format!("{line} {steps}")), "{told}");
        }
    }
}
