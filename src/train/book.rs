//! The books of a run: turns finished passes into reports and tells them to whoever listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize};
use tracing::{debug, info};

use super::event::{CheckpointReport, EpochReport, Event, StepReport};
use super::units::{Operations, TextMeasures, TextUnits, Utilisation};
use crate::clock::MEASURES;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::executor::Done;
use crate::graph::op::LOSS_SCALE_LOG2;
use crate::graph::plan::Pass;
use crate::pipeline::{Split, Work};
use crate::report::histogram::Histogram;

/// Updates skipped in a row, because a gradient was not finite, after which a run has diverged; by default.
pub const SKIPPED_IN_A_ROW_MAX: u32 = 10;

/// Somebody who wants to know. Called on the device thread, so it must be quick.
pub(super) enum Listener {
    Step(Box<dyn FnMut(&StepReport) + Send>),
    Epoch(Box<dyn FnMut(&EpochReport) + Send>),
    Checkpoint(Box<dyn FnMut(&CheckpointReport) + Send>),
    Stream(async_channel::Sender<Result<Event>>),
    Queue(crossbeam_channel::Sender<Result<Event>>),
}

/// How long the device thread sleeps before it looks again whether a full stream or queue has room.
const FULL_PAUSE: Duration = Duration::from_millis(1);

impl Listener {
    /// Tells one event; false when nobody listens any more.
    fn tell(&mut self, event: &Event, abandoned: &AtomicBool) -> bool {
        match (self, event) {
            (Listener::Step(call), Event::Step(report)) => call(report),
            (Listener::Epoch(call), Event::Epoch(report)) => call(report),
            (Listener::Checkpoint(call), Event::Checkpoint(report)) => call(report),
            (listener, event) => return listener.send(Ok(event.clone()), abandoned),
        }
        true
    }

    /// Sends into a stream or queue. A full one holds the run up until its owner has caught up, so nothing
    /// is lost and memory stays bounded; unless the trainer itself is gone.
    fn send(&mut self, mut item: Result<Event>, abandoned: &AtomicBool) -> bool {
        // How things stand is of no use to an owner who is behind, and must not fill what was sized for steps.
        let behind = match self {
            Listener::Stream(stream) => !stream.is_empty(),
            Listener::Queue(queue) => !queue.is_empty(),
            _ => false,
        };
        if behind && matches!(item, Ok(Event::Pulse(_))) {
            return true;
        }
        loop {
            item = match self {
                Listener::Stream(stream) => match stream.try_send(item) {
                    Err(async_channel::TrySendError::Full(item)) => item,
                    sent => return sent.is_ok(),
                },
                Listener::Queue(queue) => match queue.try_send(item) {
                    Err(crossbeam_channel::TrySendError::Full(item)) => item,
                    sent => return sent.is_ok(),
                },
                _ => return true,
            };
            if abandoned.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(FULL_PAUSE);
        }
    }
}

/// Sums over samples; kept in checkpoints, so that a resumed epoch reports the same means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Sum of losses.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Correct predictions.
    pub correct: f64,
    /// Samples.
    pub count: f64,
    /// Bad samples that others stood in for, or that were left out.
    #[serde(default)]
    pub bad: u64,
}

/// JSON has no NaN and writes `null` for it; a loss that was not finite must not spoil a checkpoint.
pub(super) fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Tally {
    fn add(&mut self, work: &Work, done: &Done) {
        self.bad += work.bad as u64;
        self.loss += f64::from(done.metrics[0]);
        self.correct += f64::from(done.metrics[1]);
        self.count += f64::from(done.metrics[2]);
    }

    fn mean(&self) -> f64 {
        self.loss / self.count
    }

    fn accuracy(&self, classifies: bool) -> Option<f64> {
        classifies.then(|| self.correct / self.count)
    }
}

/// How far a run has come: what a checkpoint keeps besides the arenas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps applied.
    pub step: u64,
    /// The epoch under way.
    pub epoch: Tally,
    /// The last epoch that ended.
    pub last_epoch: Option<EpochReport>,
    /// How often the run went back and on with a lower learning rate, see
    /// [`OnNan::Rollback`](super::recovery::OnNan::Rollback).
    #[serde(default)]
    pub rollbacks: u32,
}

impl Progress {
    /// Whether the epoch that ends at this step was already validated.
    pub fn validated(&self) -> bool {
        self.last_epoch.is_some_and(|epoch| epoch.step == self.step)
    }
}

/// What a run is, as far as its books need to know.
pub(super) struct Terms {
    /// Start of the run, from which elapsed time counts.
    pub began: Instant,
    /// Whether predictions can be correct at all.
    pub classifies: bool,
    /// How samples of text are counted, and the work for one, if they are text.
    pub text: Option<(TextUnits, Operations)>,
    /// Whether a validation follows every epoch.
    pub validates: bool,
    /// Whether the loss is scaled, as mixed precision does.
    pub scales_loss: bool,
    /// Updates skipped in a row after which the run has diverged.
    pub skipped_max: u32,
    /// The learning rate of each step.
    pub lr: Box<dyn Fn(u64) -> f64 + Send>,
    /// Set when the trainer is dropped: nobody will catch up with a full stream any more.
    pub abandoned: Arc<AtomicBool>,
}

impl Terms {
    /// What a loss and a rate come to, of text.
    pub fn measures(&self, loss: Option<f64>, samples_per_s: f64) -> (TextMeasures, Utilisation) {
        let Some((text, work)) = self.text else { return Default::default() };
        (text.measures(loss, samples_per_s), work.utilisation(samples_per_s))
    }
}

/// What has happened so far.
pub(super) struct Book {
    pub terms: Terms,
    listeners: Vec<Listener>,
    /// The step, epoch and validation under way.
    step: Tally,
    pub epoch: Tally,
    validation: Tally,
    /// Steps completed, including those before a resume.
    pub steps: u64,
    /// Samples this process trained on, in all and in the epoch under way.
    pub samples: u64,
    epoch_samples: u64,
    /// Seconds spent training, in all and in the epoch under way.
    pub train_s: f64,
    epoch_s: f64,
    pub skipped: u64,
    /// Bad samples that this process left out or had others stand in for.
    pub bad: u64,
    /// The loss scale of the next step, where the loss is scaled.
    pub loss_scale: Option<f64>,
    pub last_epoch: Option<EpochReport>,
    /// Seconds from the result of a step to that of the next, and those of the step under way.
    pub step_times: Histogram,
    step_s: f64,
    /// Epochs that ended in this process.
    pub epochs: u64,
    rollbacks: u32,
    /// When the last result came, or work began: time since belongs to the next result.
    clock: Option<Instant>,
}

impl Book {
    pub fn new(terms: Terms, progress: &Progress) -> Self {
        Self {
            terms,
            listeners: Vec::new(),
            step: Tally::default(),
            epoch: progress.epoch,
            validation: Tally::default(),
            steps: progress.step,
            samples: 0,
            epoch_samples: 0,
            train_s: 0.0,
            epoch_s: 0.0,
            skipped: 0,
            bad: 0,
            loss_scale: None,
            last_epoch: progress.last_epoch,
            step_times: Histogram::default(),
            step_s: 0.0,
            epochs: 0,
            rollbacks: progress.rollbacks,
            clock: None,
        }
    }

    pub fn listen(&mut self, listener: Listener) {
        self.listeners.push(listener);
    }

    pub fn tell(&mut self, event: &Event) {
        let abandoned = &self.terms.abandoned;
        self.listeners.retain_mut(|listener| listener.tell(event, abandoned));
    }

    /// The run is over, with an error or without: streams and queues end.
    pub fn close(&mut self, failure: Option<&Error>) {
        for mut listener in self.listeners.drain(..) {
            if let Some(error) = failure {
                listener.send(Err(error.clone()), &self.terms.abandoned);
            }
        }
    }

    /// Time counts from here unless it already does.
    pub fn start_clock(&mut self) {
        self.clock.get_or_insert_with(Instant::now);
    }

    /// Time until the next start is nobody's: the run pauses.
    pub fn stop_clock(&mut self) {
        self.clock = None;
    }

    /// What a checkpoint taken now keeps.
    pub fn progress(&self) -> Progress {
        let (step, epoch, last_epoch) = (self.steps, self.epoch, self.last_epoch);
        Progress { step, epoch, last_epoch, rollbacks: self.rollbacks }
    }

    /// Enters a finished pass; returns the report of the step if it completed one.
    ///
    /// # Errors
    /// When too many updates in a row were skipped: the run has diverged.
    pub fn enter(&mut self, work: &Work, done: &Done) -> Result<Option<StepReport>> {
        let now = Instant::now();
        let took = self.clock.replace(now).map_or(0.0, |before| (now - before).as_secs_f64());
        if work.split == Split::Validation {
            self.validation.add(work, done);
            if work.last {
                self.end_epoch(work.epoch);
            }
            return Ok(None);
        }
        self.train_s += took;
        self.epoch_s += took;
        self.step.add(work, done);
        self.step_s += took;
        if done.pass == Pass::Accumulate {
            return Ok(None);
        }
        let report = self.step_report(work, done);
        debug!(step = report.step, loss = report.loss, lr = report.lr, "step");
        self.tell(&Event::Step(report));
        if work.last && !self.terms.validates {
            self.end_epoch(work.epoch);
        }
        let in_a_row = done.control[7] as u32;
        // A loss scale above 1 may yet be what is too large, and every skipped step halves it.
        let is_lowering = self.loss_scale.is_some_and(|scale| scale > 1.0);
        if in_a_row >= self.terms.skipped_max && !is_lowering {
            let item = format!("step {}", report.step);
            let message = match in_a_row {
                1 => "its gradients are not finite".into(),
                _ => format!("the gradients of {in_a_row} steps in a row are not finite"),
            };
            return Err(Error::new(Stage::Compute, ErrorKind::Diverged, item, message)
                .hint("a lower --lr, --clip-norm 1, or --warmup-steps"));
        }
        Ok(Some(report))
    }

    fn step_report(&mut self, work: &Work, done: &Done) -> StepReport {
        let (step, step_s) = (std::mem::take(&mut self.step), std::mem::take(&mut self.step_s));
        // The first one's time holds the filling of the pipeline.
        if MEASURES && self.samples > 0 {
            self.step_times.add(step_s);
        }
        self.epoch.loss += step.loss;
        self.epoch.correct += step.correct;
        self.epoch.count += step.count;
        self.epoch.bad += step.bad;
        self.bad += step.bad;
        self.steps = work.step + 1;
        self.samples += step.count as u64;
        self.epoch_samples += step.count as u64;
        let skipped = done.control[6] == 0.0;
        self.skipped += u64::from(skipped);
        let scale = f64::from(done.control[8] + LOSS_SCALE_LOG2 as f32).exp2();
        self.loss_scale = self.terms.scales_loss.then_some(scale);
        StepReport {
            step: self.steps,
            epoch: work.epoch,
            loss: step.mean(),
            accuracy: step.accuracy(self.terms.classifies),
            lr: (self.terms.lr)(work.step),
            samples: step.count as u64,
            grad_norm: f64::from(done.control[4]),
            skipped,
            elapsed_s: self.terms.began.elapsed().as_secs_f64(),
        }
    }

    /// A stream ended before the run: what there was of its epoch is reported.
    pub fn end_early(&mut self) {
        if self.epoch.count > 0.0 && !self.terms.validates {
            self.end_epoch(0);
        }
    }

    fn end_epoch(&mut self, number: u64) {
        let (epoch, validation) =
            (std::mem::take(&mut self.epoch), std::mem::take(&mut self.validation));
        let validated = self.terms.validates;
        self.bad += validation.bad;
        let samples_per_s =
            if self.epoch_s > 0.0 { self.epoch_samples as f64 / self.epoch_s } else { 0.0 };
        let told = if validated { validation.mean() } else { epoch.mean() };
        let (text, utilisation) = self.terms.measures(Some(told), samples_per_s);
        let report = EpochReport {
            epoch: number,
            step: self.steps,
            loss: epoch.mean(),
            accuracy: epoch.accuracy(self.terms.classifies),
            val_loss: validated.then(|| validation.mean()),
            val_accuracy: validation.accuracy(self.terms.classifies && validated),
            replaced: epoch.bad,
            left_out: validation.bad,
            text,
            utilisation,
            samples_per_s,
            elapsed_s: self.terms.began.elapsed().as_secs_f64(),
        };
        (self.epoch_samples, self.epoch_s) = (0, 0.0);
        info!(
            epoch = number,
            step = report.step,
            loss = report.loss,
            val_loss = report.val_loss,
            "epoch"
        );
        self.last_epoch = Some(report);
        self.epochs += 1;
        self.tell(&Event::Epoch(report));
    }
}
