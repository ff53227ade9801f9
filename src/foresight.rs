//! What the prepare thread knows before a batch has its turn: the next batches of the agenda, told to those who read
//! ahead, and by how the last ones went, how many readers, slots and workers there should be.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gauges::Gauges;
use crate::pipeline::{Split, Work};
use crate::tuner::{Seen, Tuner};

/// What numbers are judged by: long enough for many reads of a slow disk,
const WINDOW: Duration = Duration::from_millis(250);
/// and for as many batches as go through the ring more than once.
const WINDOW_BATCHES: usize = 8;

/// The agenda, of which the next batches are told to those who read ahead.
pub(crate) struct Foresight<A, F> {
    agenda: A,
    next: VecDeque<Work>,
    /// Batches that are announced before their turn.
    depth: usize,
    announce: F,
    autotune: Autotune,
}

impl<A: Iterator<Item = Work>, F: FnMut(&Work)> Foresight<A, F> {
    /// Tells `announce` of every batch when it is `depth` batches from its turn.
    pub fn new(agenda: A, depth: usize, announce: F, autotune: Autotune) -> Self {
        Self { agenda, next: VecDeque::new(), depth, announce, autotune }
    }
}

impl<A: Iterator<Item = Work>, F: FnMut(&Work)> Iterator for Foresight<A, F> {
    type Item = Work;

    fn next(&mut self) -> Option<Work> {
        while self.next.len() <= self.depth
            && let Some(work) = self.agenda.next()
        {
            if self.depth > 0 {
                (self.announce)(&work);
            }
            self.next.push_back(work);
        }
        let work = self.next.pop_front()?;
        self.autotune.see(&work);
        Some(work)
    }
}

/// Watches the pipeline, and changes what is at work in it.
pub(crate) struct Autotune {
    tuner: Tuner,
    gauges: Arc<Gauges>,
    window: Window,
    /// The first window after a change tells of both sides of it.
    skip: bool,
}

/// What has been seen since it began.
struct Window {
    began: Instant,
    split: Split,
    batches: usize,
    samples: usize,
    /// Seconds that had gone by when it began.
    spent: Spent,
}

/// Seconds of a run, from its beginning on.
#[derive(Clone, Copy)]
struct Spent {
    /// Workers with reads,
    read_s: f64,
    /// and with all.
    workers_s: f64,
    starved_s: f64,
    idle_s: f64,
}

impl Spent {
    fn of(gauges: &Gauges) -> Self {
        Self {
            read_s: gauges.stages.read_s(),
            workers_s: gauges.stages.all_s(),
            starved_s: gauges.starved.seconds(),
            idle_s: gauges.idle.seconds(),
        }
    }
}

impl Autotune {
    /// Sets what `tuner` begins with.
    pub fn new(tuner: Tuner, gauges: Arc<Gauges>) -> Self {
        let window = Window::new(Split::Train, &gauges);
        gauges.set_at_work(tuner.sizes());
        Self { tuner, gauges, window, skip: true }
    }

    /// Notes a batch whose turn has come.
    fn see(&mut self, work: &Work) {
        if work.split != self.window.split {
            // Validation takes another time a batch than training does.
            self.window = Window::new(work.split, &self.gauges);
            self.skip = true;
        }
        self.window.batches += 1;
        self.window.samples += work.indices.len();
        if self.window.batches < WINDOW_BATCHES || self.window.began.elapsed() < WINDOW {
            return;
        }
        let next = Window::new(work.split, &self.gauges);
        let window = std::mem::replace(&mut self.window, next);
        if !std::mem::take(&mut self.skip) {
            let before = self.tuner.sizes();
            let sizes = self.tuner.next(window.until(&self.window));
            self.skip = sizes != before;
            if self.skip {
                self.gauges.set_at_work(sizes);
            }
        }
    }
}

impl Window {
    fn new(split: Split, gauges: &Gauges) -> Self {
        Self { began: Instant::now(), split, batches: 0, samples: 0, spent: Spent::of(gauges) }
    }

    /// What was seen until the next one began.
    fn until(&self, next: &Self) -> Seen {
        let wall_s = (next.began - self.began).as_secs_f64();
        let (from, to) = (self.spent, next.spent);
        Seen {
            samples_per_s: self.samples as f64 / wall_s,
            read_share: (to.read_s - from.read_s) / (to.workers_s - from.workers_s).max(1e-9),
            starved: (to.starved_s - from.starved_s) / wall_s,
            idle: (to.idle_s - from.idle_s) / wall_s,
        }
    }
}
