//! The trainer: one engine behind the five shapes in which people drive a training loop.
//!
//! | shape | call |
//! |---|---|
//! | promise | [`Trainer::step`]`.await` |
//! | whole run | [`Trainer::fit`]`.await` |
//! | callbacks | [`Trainer::on_step`], [`Trainer::on_epoch`], [`Trainer::on_checkpoint`] |
//! | stream | [`Trainer::events`] |
//! | message queues | [`Trainer::commands`] in, [`Trainer::queue`] out |
//!
//! Whoever subscribes to `tracing` sees spans `start`, `submit`, `fill` (a chunk of a batch), `checkpoint` and `end` on
//! the threads where they happen, and events `step` and `epoch`; with no subscriber they cost a load each.
//!
//! Preparation begins as soon as a trainer is made: batches wait in the ring before the first step is asked for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use crossbeam_channel::{Receiver, Sender, bounded};
use futures_channel::oneshot;
use futures_core::Stream;

use super::book::Listener;
use super::builder::TrainerBuilder;
use super::engine::Message;
use super::event::{CheckpointReport, EpochReport, Event, StepReport, Summary};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::executor::DeviceInfo;
use crate::graph::Arena;
use crate::graph::plan::Program;
use crate::nn::Module;
use crate::pipeline::Pipeline;
use crate::source::Source;

/// Messages that may wait for the device thread: it reads all of them between two passes, so this is only
/// reached by a program that asks for a thousand steps within one.
pub(super) const MAILBOX_LEN: usize = 1024;

/// Events that may wait in a stream before the run is held up.
const EVENTS_LEN: usize = 1024;

/// Trains a model. Dropping it ends the run wherever it is and joins its threads.
pub struct Trainer {
    mailbox: Sender<Message>,
    abandoned: Arc<AtomicBool>,
    program: Arc<Program>,
    device: DeviceInfo,
    total_steps: u64,
    steps_per_epoch: u64,
    /// Dropped last: joins the threads.
    _pipeline: Pipeline,
}

/// What a [`TrainerBuilder`] hands over.
pub(super) struct Parts {
    pub mailbox: Sender<Message>,
    pub abandoned: Arc<AtomicBool>,
    pub program: Arc<Program>,
    pub device: DeviceInfo,
    pub total_steps: u64,
    pub steps_per_epoch: u64,
    pub pipeline: Pipeline,
}

/// A parameter read back from the device.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// PyTorch's name.
    pub name: String,
    /// Shape in PyTorch's layout.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Vec<f32>,
}

impl Trainer {
    /// Begins to describe a training of `model` on `train`.
    pub fn builder(model: impl Module + 'static, train: Arc<dyn Source>) -> TrainerBuilder {
        TrainerBuilder::new(Arc::new(model), train)
    }

    pub(super) fn new(parts: Parts) -> Self {
        let Parts { mailbox, abandoned, program, device, total_steps, steps_per_epoch, pipeline } =
            parts;
        Self {
            mailbox,
            abandoned,
            program,
            device,
            total_steps,
            steps_per_epoch,
            _pipeline: pipeline,
        }
    }

    /// Asks for one more optimizer step and promises its report. Ask for several before awaiting the first:
    /// they overlap. Resolves to `None` when the run was over before.
    pub fn step(&self) -> StepPromise {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Step(reply));
        StepPromise(answer)
    }

    /// Runs to the last step and promises the summary.
    pub fn fit(&self) -> Fit {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Fit(reply));
        Fit(answer)
    }

    /// Calls `call` on the device thread after every step; it should be quick.
    pub fn on_step(&self, call: impl FnMut(&StepReport) + Send + 'static) {
        self.send(Message::Listen(Listener::Step(Box::new(call))));
    }

    /// Calls `call` on the device thread after every epoch and its validation.
    pub fn on_epoch(&self, call: impl FnMut(&EpochReport) + Send + 'static) {
        self.send(Message::Listen(Listener::Epoch(Box::new(call))));
    }

    /// Calls `call` on the device thread when a checkpoint has reached the disk.
    pub fn on_checkpoint(&self, call: impl FnMut(&CheckpointReport) + Send + 'static) {
        self.send(Message::Listen(Listener::Checkpoint(Box::new(call))));
    }

    /// All events from now on as a stream; it ends after [`Event::Done`], or with the error of the run. A
    /// stream that nobody reads holds the run up after 1024 events; dropping it does not.
    pub fn events(&self) -> Events {
        let (sender, receiver) = async_channel::bounded(EVENTS_LEN);
        self.send(Message::Listen(Listener::Stream(sender)));
        Events(Box::pin(receiver))
    }

    /// All events from now on in a bounded queue of `capacity`, for a thread of your own. A full queue holds
    /// the run up; a dropped one does not.
    pub fn queue(&self, capacity: usize) -> Receiver<Result<Event>> {
        let (sender, receiver) = bounded(capacity);
        self.send(Message::Listen(Listener::Queue(sender)));
        receiver
    }

    /// A handle that steers the run from any thread.
    pub fn commands(&self) -> Commands {
        Commands(self.mailbox.clone())
    }

    /// Reads the parameters once the steps asked for so far have come back: those that training goes on with,
    /// not their moving average.
    ///
    /// # Errors
    /// The error of the run, if it failed.
    pub async fn parameters(&self) -> Result<Vec<Parameter>> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Read(Arena::Params, reply));
        let arena = answer.await.unwrap_or_else(|_| Err(gone()))?;
        let read = |v: &crate::graph::plan::Variable| Parameter {
            name: v.name.clone(),
            shape: v.shape.clone(),
            values: arena[v.range()].to_vec(),
        };
        Ok(self.program.params.iter().map(read).collect())
    }

    /// What it runs on.
    pub fn device(&self) -> &DeviceInfo {
        &self.device
    }

    /// The compiled program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The optimizer steps of the whole run, and those of an epoch.
    pub fn steps(&self) -> (u64, u64) {
        (self.total_steps, self.steps_per_epoch)
    }

    fn send(&self, message: Message) {
        // When the device thread is gone, the promise in the message is broken, and says so itself.
        let _ = self.mailbox.send(message);
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        self.send(Message::Quit);
    }
}

pub(super) fn gone() -> Error {
    Error::new(Stage::Compute, ErrorKind::Device, "device thread", "ended unexpectedly")
        .hint("running again with RUST_BACKTRACE=1, and reporting what it prints")
}

/// The promise of a step, see [`Trainer::step`].
pub struct StepPromise(oneshot::Receiver<Result<Option<StepReport>>>);

impl Future for StepPromise {
    type Output = Result<Option<StepReport>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(gone())))
    }
}

/// The promise of a whole run, see [`Trainer::fit`].
pub struct Fit(oneshot::Receiver<Result<Summary>>);

impl Future for Fit {
    type Output = Result<Summary>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(gone())))
    }
}

/// A stream of events, see [`Trainer::events`]; outside of async code, an iterator that blocks.
pub struct Events(Pin<Box<async_channel::Receiver<Result<Event>>>>);

impl Stream for Events {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.recv_blocking().ok()
    }
}

/// Steers a run from any thread, see [`Trainer::commands`].
#[derive(Clone)]
pub struct Commands(Sender<Message>);

impl Commands {
    /// Lets the run do `count` more steps. False when the run is gone.
    pub fn steps(&self, count: u64) -> bool {
        self.0.send(Message::Steps(count)).is_ok()
    }

    /// Saves a checkpoint after the next step to be submitted.
    pub fn checkpoint(&self) -> bool {
        self.0.send(Message::Checkpoint).is_ok()
    }

    /// Finishes the steps in flight, and the one that is submitted in part, saves, and ends the run. Where the rest of that
    /// one does not come within half a minute, it is taken back.
    pub fn stop(&self) -> bool {
        self.0.send(Message::Stop).is_ok()
    }
}
