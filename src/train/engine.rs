//! The event loop of the `device` thread: takes filled slots, submits passes, collects results, resolves
//! promises, returns slots. It never waits for one result while it could submit another pass.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvError, TryRecvError, select};
use futures_channel::oneshot;
use serde_json::json;
use tracing::{debug_span, info_span};

use super::book::{Book, Listener};
use super::event::{Event, FirstStep, StepReport, Summary};
use super::meter::Meter;
use super::run::Run;
use crate::batch::StepHeader;
use crate::clock::{MEASURES, Stamp};
use crate::error::{Error, Result};
use crate::executor::{Done, Executor, Snapshot, Wants};
use crate::faults::{self, At};
use crate::graph::Arena;
use crate::graph::plan::Pass;
use crate::pipeline::{DeviceEnds, Filled, Split, Work};
use crate::report::pulse::PULSE_EVERY;
use crate::report::trace::{Tracer, Track};
use crate::report::verdict::Depths;
use crate::source::Source;

/// How long the device thread waits for a result before it looks for the next batch and for messages.
const PATIENCE: Duration = Duration::from_micros(500);

/// How long a stopped run waits for the next batch of the step under way: longer than a disk or a network takes for one,
/// and no longer than somebody waits who asked for the end. What sends samples may never send the rest.
const REST_WAIT_MAX: Duration = Duration::from_secs(30);

/// The answer to a promised step: its report, or `None` when the run was over before it.
pub(super) type StepReply = oneshot::Sender<Result<Option<StepReport>>>;

/// What the device thread can be asked.
pub(super) enum Message {
    /// Run one more step and answer with its report.
    Step(StepReply),
    /// Run so many more steps.
    Steps(u64),
    /// Run to the end and answer with the summary.
    Fit(oneshot::Sender<Result<Summary>>),
    /// Tell somebody from now on.
    Listen(Listener),
    /// Save a checkpoint after the step under way.
    Checkpoint,
    /// Finish the step under way, save, and end.
    Stop,
    /// Read the parameters when nothing is in flight.
    Read(Arena, oneshot::Sender<Result<Vec<f32>>>),
    /// The trainer is gone.
    Quit,
}

/// Times of the device thread, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DeviceTimes {
    pub launch_s: f64,
    pub wait_s: f64,
    pub busy_s: f64,
    pub copied_s: f64,
    pub passes: u64,
    pub queues: Depths,
}

impl DeviceTimes {
    /// Notes how deep the queues are, now that a pass is submitted.
    fn look(&mut self, ends: Option<&DeviceEnds>, in_flight: usize) {
        if let Some(ends) = ends.filter(|_| MEASURES) {
            self.queues.full.look(ends.full.len());
            self.queues.empty.look(ends.empty.len());
            self.queues.in_flight.look(in_flight);
        }
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Passes are submitted as batches and credits allow.
    Running,
    /// Stopped within an accumulated step, the rest of which is still submitted; since when nothing happened.
    Finishing { since: Instant },
    /// Nothing more is submitted; what is in flight still comes back.
    Ending { stopped: bool },
    /// The summary is made; only questions are answered.
    Over,
}

/// Where the samples are from, to be told what became of them.
pub(super) struct Sources {
    pub train: Arc<dyn Source>,
    pub validation: Option<Arc<dyn Source>>,
    /// Samples of the accumulated step under way, whose results are there but not applied.
    pub waiting: Vec<usize>,
}

impl Sources {
    /// Tells of a batch whose result was entered into the books.
    fn applied(&mut self, work: &Work) {
        match (work.split, work.pass, &self.validation) {
            (Split::Validation, _, Some(validation)) => validation.applied(&work.indices),
            (Split::Validation, _, None) => {}
            (Split::Train, Pass::Accumulate, _) => self.waiting.extend_from_slice(&work.indices),
            (Split::Train, ..) if self.waiting.is_empty() => self.train.applied(&work.indices),
            (Split::Train, ..) => {
                self.waiting.extend_from_slice(&work.indices);
                self.train.applied(&self.waiting);
                self.waiting.clear();
            }
        }
    }
}

/// The device thread's state.
pub(super) struct Engine {
    executor: Box<dyn Executor>,
    /// `None` once the run has ended: dropping it ends the prepare thread.
    ends: Option<DeviceEnds>,
    mailbox: Receiver<Message>,
    book: Book,
    run: Run,
    phase: Phase,
    /// Whether a step is submitted in part.
    in_step: bool,
    /// Why no batches come any more: told once what came back is saved.
    cause: Option<Error>,
    /// Why the trace could not be written: told once all else is.
    untraced: Option<Error>,
    failure: Option<Error>,
    /// Steps that may still be submitted.
    credits: u64,
    promises: VecDeque<StepReply>,
    fits: Vec<oneshot::Sender<Result<Summary>>>,
    questions: Vec<(Arena, oneshot::Sender<Result<Vec<f32>>>)>,
    pending: Option<Filled>,
    flying: VecDeque<Work>,
    sources: Sources,
    checkpoint_asked: bool,
    times: DeviceTimes,
    meter: Meter,
    /// When the passes in flight were submitted, how many have come back, and the first step; of a run that is traced.
    submitted: VecDeque<Instant>,
    traced: u64,
    traced_from: Option<u64>,
    first: FirstStep,
    started: Instant,
    summary: Option<Summary>,
}

impl Engine {
    pub fn new(
        executor: Box<dyn Executor>,
        ends: DeviceEnds,
        mailbox: Receiver<Message>,
        book: Book,
        run: Run,
        sources: Sources,
        first: FirstStep,
    ) -> Self {
        let shares_thread = executor.device().shares_cores();
        Self {
            executor,
            ends: Some(ends),
            mailbox,
            book,
            run,
            phase: Phase::Running,
            in_step: false,
            cause: None,
            untraced: None,
            failure: None,
            credits: 0,
            promises: VecDeque::new(),
            fits: Vec::new(),
            questions: Vec::new(),
            pending: None,
            flying: VecDeque::new(),
            sources,
            checkpoint_asked: false,
            times: DeviceTimes::default(),
            meter: Meter::new(shares_thread),
            submitted: VecDeque::new(),
            traced: 0,
            traced_from: None,
            first,
            started: Instant::now(),
            summary: None,
        }
    }

    /// Runs until the trainer is gone.
    pub fn run(mut self) {
        let tracer = self.ends.as_ref().and_then(|ends| ends.gauges.tracer.clone());
        if let Some(Err(error)) = tracer.map(|tracer| self.executor.trace(tracer)) {
            self.fail(error);
        }
        while let Ok(()) = self.turn() {}
    }

    /// One round of the loop; `Err` when the trainer is gone.
    fn turn(&mut self) -> Result<(), RecvError> {
        while let Ok(message) = self.mailbox.try_recv() {
            self.receive(message)?;
        }
        let outcome = self.advance();
        if let Err(error) = outcome {
            self.fail(error);
        }
        match self.idle() {
            Some(Idle::ForMessage) => {
                self.book.stop_clock();
                let message = self.mailbox.recv()?;
                self.receive(message)
            }
            Some(Idle::ForBatch) => self.wait_for_batch(),
            None => Ok(()),
        }
    }

    fn receive(&mut self, message: Message) -> Result<(), RecvError> {
        match message {
            Message::Step(reply) if self.phase == Phase::Running => {
                self.credits = self.credits.saturating_add(1);
                self.promises.push_back(reply);
            }
            Message::Step(reply) => self.answer(reply, None),
            Message::Steps(count) => self.credits = self.credits.saturating_add(count),
            Message::Fit(reply) => {
                self.credits = u64::MAX;
                match (&self.failure, &self.summary) {
                    (Some(error), _) => drop(reply.send(Err(error.clone()))),
                    (None, Some(summary)) => drop(reply.send(Ok(summary.clone()))),
                    (None, None) => self.fits.push(reply),
                }
            }
            Message::Listen(listener) => {
                self.book.listen(listener);
                if self.phase == Phase::Over {
                    self.book.close(self.failure.as_ref());
                }
            }
            Message::Checkpoint => self.checkpoint_asked = true,
            Message::Stop if self.phase == Phase::Running => {
                self.phase = match self.in_step {
                    true => Phase::Finishing { since: Instant::now() },
                    false => Phase::Ending { stopped: true },
                };
            }
            Message::Stop => {}
            Message::Read(arena, reply) => match &self.failure {
                Some(error) => drop(reply.send(Err(error.clone()))),
                None => self.questions.push((arena, reply)),
            },
            Message::Quit => return Err(RecvError),
        }
        Ok(())
    }

    /// A promise that no step will keep: the failure, or nothing.
    fn answer(&self, reply: StepReply, report: Option<StepReport>) {
        // Whoever dropped the promise does not want the answer.
        let _ = reply.send(match (self.failure.as_ref().or(self.cause.as_ref()), report) {
            (Some(error), None) => Err(error.clone()),
            (_, report) => Ok(report),
        });
    }

    /// Collects what is finished and submits what can go.
    fn advance(&mut self) -> Result<()> {
        if self.failure.is_some() {
            return Ok(());
        }
        while self.executor.in_flight() > 0 {
            match self.executor.collect(Duration::ZERO)? {
                Some(done) => self.finish(done)?,
                None => break,
            }
        }
        self.fetch();
        if self.may_submit() {
            return self.submit();
        }
        if self.executor.in_flight() > 0 {
            let began = Stamp::now();
            let done = self.executor.collect(PATIENCE)?;
            let ended = Stamp::now();
            self.times.wait_s += began.until(ended).as_secs_f64();
            if let Some(tracer) = tracing(&self.ends)
                && let (Some(began), Some(ended)) = (began.instant(), ended.instant())
            {
                tracer.span(Track::Thread, "wait for a result", began, ended, json!({}));
            }
            return done.map_or(Ok(()), |done| self.finish(done));
        }
        self.answer_questions();
        match self.phase {
            Phase::Ending { stopped } => self.end(stopped),
            Phase::Running | Phase::Finishing { .. } | Phase::Over => Ok(()),
        }
    }

    /// Whether batches are wanted.
    fn submits(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Finishing { .. })
    }

    /// Takes the next batch from the queue if it is there.
    fn fetch(&mut self) {
        if self.pending.is_some() || !self.submits() {
            return;
        }
        let Some(ends) = &self.ends else { return };
        match ends.full.try_recv() {
            Ok(filled) => self.take(Some(filled)),
            Err(TryRecvError::Empty) => self.tire(),
            Err(TryRecvError::Disconnected) => self.take(None),
        }
    }

    /// What came out of the queue: a batch, why there are no more, or its end. Nothing is wrong with what is in flight
    /// when a batch fails, so that comes back and is saved before the failure is told.
    fn take(&mut self, filled: Option<Result<Filled>>) {
        match filled {
            Some(Ok(filled)) => {
                self.pending = Some(filled);
                return;
            }
            Some(Err(error)) => self.cause = Some(error),
            None => {}
        }
        // The epoch of a stream that ended is over; that of a run that goes on from here is not.
        let stopped = self.cause.is_some() || matches!(self.phase, Phase::Finishing { .. });
        self.phase = Phase::Ending { stopped };
    }

    /// A stopped run does not wait for the rest of its step for ever.
    fn tire(&mut self) {
        if let Phase::Finishing { since } = self.phase
            && since.elapsed() >= REST_WAIT_MAX
        {
            self.phase = Phase::Ending { stopped: true };
        }
    }

    /// Validation and the rest of an accumulated step need no credit of their own; a stopped run finishes its step.
    fn may_submit(&self) -> bool {
        let Some(Filled { work, .. }) = &self.pending else { return false };
        let free = work.split == Split::Validation || work.micro_step > 0;
        self.submits() && (free || self.credits > 0)
    }

    fn submit(&mut self) -> Result<()> {
        let Some(Filled { work, mut slot }) = self.pending.take() else { return Ok(()) };
        if self.times.passes == 0 {
            self.first.first_batch_s = self.started.elapsed().as_secs_f64();
        }
        self.book.start_clock();
        let seed = self.run.seed;
        slot.write_header(&StepHeader {
            count: work.indices.len() as u32,
            step: work.step as u32,
            seed_low: seed as u32,
            seed_high: (seed >> 32) as u32,
            lr: (self.book.terms.lr)(work.step) as f32,
            micro_step: work.micro_step,
            weight: weight(&work),
            _pad: 0,
        });
        let completes = work.pass == Pass::Train;
        let asked = completes && std::mem::take(&mut self.checkpoint_asked);
        let snapshot = completes && self.run.due(&work, asked);
        // A fit grants steps without end.
        if completes && self.credits != u64::MAX {
            self.credits = self.credits.saturating_sub(1);
        }
        let output = self.run.submitting(&work);
        let wants = Wants { output, snapshot, ..Wants::default() };
        self.times.look(self.ends.as_ref(), self.executor.in_flight());
        let index = slot.index;
        let args = || json!({ "pass": self.times.passes, "step": work.step, "epoch": work.epoch });
        if let Some(tracer) = tracing(&self.ends) {
            tracer.slot(index, "wait for the device", args());
        }
        let began = Stamp::now();
        debug_span!("submit", pass = ?work.pass, step = work.step, epoch = work.epoch)
            .in_scope(|| self.executor.submit(work.pass, slot, wants))?;
        let ended = Stamp::now();
        if let Some(tracer) = tracing(&self.ends)
            && let (Some(began), Some(ended)) = (began.instant(), ended.instant())
        {
            tracer.span(Track::Thread, "submit", began, ended, args());
            self.submitted.push_back(began);
        }
        self.times.launch_s += began.until(ended).as_secs_f64();
        self.times.passes += 1;
        self.in_step = work.pass == Pass::Accumulate;
        if let Phase::Finishing { since } = &mut self.phase {
            *since = Instant::now();
            if completes {
                self.phase = Phase::Ending { stopped: true };
            }
        }
        self.flying.push_back(work);
        Ok(())
    }

    /// Enters a finished pass into the books, answers its promise and gives its slot back.
    fn finish(&mut self, mut done: Done) -> Result<()> {
        let work = self.flying.pop_front().expect("results come in the order of submission");
        let busy = done.device_busy.map_or(0.0, |time| time.as_secs_f64());
        self.times.busy_s += busy;
        self.times.copied_s += done.copied.map_or(0.0, |time| time.as_secs_f64());
        if self.first.total_s == 0.0 {
            let now = self.started.elapsed().as_secs_f64();
            self.first.first_result_s = now - self.first.first_batch_s;
            self.first.total_s = self.book.terms.began.elapsed().as_secs_f64();
        }
        let snapshot = done.snapshot.take();
        if let Err(error) = self.trace_finished(&work, done.slot.index) {
            self.untraced = Some(error);
        }
        if let Phase::Finishing { since } = &mut self.phase {
            *since = Instant::now();
        }
        self.run.finished(&work, &done, &self.sources);
        let epochs = self.book.epochs;
        let report = self.book.enter(&work, &done)?;
        if self.book.epochs > epochs
            && let Some(epoch) = &self.book.last_epoch
        {
            self.run.record_epoch(epoch)?;
        }
        if let Some(ends) = &self.ends {
            self.meter.look(work.epoch, ends.full.len(), 1 + self.executor.in_flight());
            // The prepare thread may already have ended.
            let _ = ends.empty.send(done.slot);
        }
        if let Some(report) = &report {
            self.run.record(report)?;
        }
        self.sources.applied(&work);
        if let Some(report) = report
            && let Some(reply) = self.promises.pop_front()
        {
            self.answer(reply, Some(report));
        }
        if let Some(snapshot) = snapshot {
            self.run.save(snapshot, self.book.progress())?;
        }
        self.tell_saved(false)?;
        self.take_pulse(false)
    }

    /// Tells how the run is, if it is time to, or its `last` pulse.
    fn take_pulse(&mut self, last: bool) -> Result<()> {
        let Some(ends) = &self.ends else { return Ok(()) };
        let pulse = self.meter.pulse(&self.book, &self.times, &ends.gauges, last);
        let Some(pulse) = pulse else { return Ok(()) };
        self.run.record_pulse(pulse)?;
        self.book.tell(&Event::Pulse(Box::new(pulse)));
        Ok(())
    }

    /// Writes into the trace that a pass has come back, and ends the trace after its last step.
    fn trace_finished(&mut self, work: &Work, slot: usize) -> Result<()> {
        let Some(tracer) = tracing(&self.ends) else { return Ok(()) };
        let Some(began) = self.submitted.pop_front() else { return Ok(()) };
        let name = match work.split {
            Split::Train => format!("step {}", work.step + 1),
            Split::Validation => format!("validation after step {}", work.step),
        };
        let number = self.traced;
        let args = json!({ "pass": number, "step": work.step, "micro_step": work.micro_step });
        tracer.slot(slot, "on the device", args.clone());
        tracer.span(Track::Passes(slot), &name, began, Instant::now(), args);
        if let Some(ends) = &self.ends {
            let flying = self.executor.in_flight();
            tracer.counter("queues", json!({ "full": ends.full.len(), "in flight": flying }));
        }
        self.traced += 1;
        let first = *self.traced_from.get_or_insert(work.step);
        let done = work.split == Split::Train && work.pass == Pass::Train;
        if done && work.step + 1 - first >= tracer.steps() {
            return tracer.finish();
        }
        Ok(())
    }

    /// Tells of the checkpoints that have reached the disk; waits for the one under way if asked.
    fn tell_saved(&mut self, wait: bool) -> Result<()> {
        for saved in self.run.saved(wait)? {
            self.book.tell(&Event::Checkpoint(saved));
        }
        Ok(())
    }

    /// What there is to wait for, if nothing can be done at once.
    fn idle(&self) -> Option<Idle> {
        if self.failure.is_some() {
            return Some(Idle::ForMessage);
        }
        if self.executor.in_flight() > 0 || matches!(self.phase, Phase::Ending { .. }) {
            return None;
        }
        match &self.pending {
            None if self.submits() => Some(Idle::ForBatch),
            Some(_) if self.may_submit() => None,
            _ => Some(Idle::ForMessage),
        }
    }

    /// Nothing is in flight and no batch is there: waits for whichever of batch and message comes first.
    fn wait_for_batch(&mut self) -> Result<(), RecvError> {
        let Some(ends) = &self.ends else { return Ok(()) };
        let gauges = ends.gauges.clone();
        let began = Stamp::now();
        let message = select! {
            recv(self.mailbox) -> message => Some(message?),
            recv(ends.full) -> filled => {
                self.take(filled.ok());
                None
            }
            default(PULSE_EVERY) => None,
        };
        let ended = Stamp::now();
        if let Some(tracer) = gauges.tracing()
            && let (Some(began), Some(ended)) = (began.instant(), ended.instant())
        {
            tracer.span(Track::Thread, "wait for a batch", began, ended, json!({}));
        }
        if self.credits > 0 && self.times.passes > 0 {
            gauges.starved.add(began.until(ended));
        }
        if let Err(error) = self.take_pulse(false) {
            self.fail(error);
        }
        message.map_or(Ok(()), |message| self.receive(message))
    }

    fn answer_questions(&mut self) {
        for (arena, reply) in std::mem::take(&mut self.questions) {
            let _ = reply.send(self.executor.store(arena));
        }
    }

    /// Takes back what a step that is not finished has moved: the running statistics of batch norms.
    fn settle(&mut self) -> Result<()> {
        if std::mem::take(&mut self.in_step) && self.run.settles() {
            let settled = self.executor.store(Arena::Settled)?;
            self.executor.load(Arena::State, 0, &settled)?;
        }
        Ok(())
    }

    /// The last checkpoint, and what was seen of the data; returns the hash of the parameters.
    fn save_last(&mut self) -> Result<String> {
        self.settle()?;
        let mut snapshot = Snapshot::default();
        for &arena in &self.run.arenas {
            snapshot.arenas.push((arena, self.executor.store(arena)?));
        }
        let hash = self.run.parameter_hash(&snapshot);
        self.run.save_last(snapshot, self.book.progress())?;
        self.tell_saved(true)?;
        self.run.testify(&self.sources)?;
        Ok(hash)
    }

    /// The run is over: the last checkpoint, the summary, the answers.
    fn end(&mut self, stopped: bool) -> Result<()> {
        let wall_s = self.started.elapsed().as_secs_f64();
        self.take_pulse(true)?;
        if let Some(Err(error)) = tracing(&self.ends).map(Tracer::finish) {
            self.untraced = Some(error);
        }
        let gauges = self.ends.take().map(|ends| ends.gauges);
        let _span = info_span!("end", stopped).entered();
        self.phase = Phase::Over;
        self.pending = None;
        if !stopped {
            self.book.end_early();
        }
        let saved = self.save_last();
        // What ended the run is told, rather than what came of it.
        if let Some(cause) = self.cause.take() {
            return Err(cause);
        }
        let parameter_hash = saved?;
        let device = self.executor.device();
        let summary = self.run.summary(super::run::Closing {
            book: &self.book,
            device,
            times: self.times,
            gauges: gauges.as_deref(),
            first: self.first,
            wall_s,
            parameter_hash,
            stopped,
        })?;
        if let Some(error) = self.untraced.take() {
            return Err(error);
        }
        self.book.tell(&Event::Done(Box::new(summary.clone())));
        self.book.close(None);
        for reply in self.fits.drain(..) {
            let _ = reply.send(Ok(summary.clone()));
        }
        self.summary = Some(summary);
        while let Some(reply) = self.promises.pop_front() {
            self.answer(reply, None);
        }
        Ok(())
    }

    /// Answers everything with the error; the pipeline behind it ends.
    fn fail(&mut self, error: Error) {
        // What there is of the run's lines belongs on the disk, whatever comes of it.
        let _ = self.run.flush();
        self.phase = Phase::Over;
        self.ends = None;
        self.pending = None;
        self.failure = Some(error.clone());
        self.book.close(Some(&error));
        for reply in self.fits.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
        while let Some(reply) = self.promises.pop_front() {
            self.answer(reply, None);
        }
        for (_, reply) in self.questions.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

/// The share of a pass in its step. A test may plan one that is NaN, which makes the gradients so where they are summed
/// up, and nothing else.
fn weight(work: &Work) -> f32 {
    let spoilt = work.split == Split::Train && faults::due(At::Gradient(work.step + 1));
    if spoilt { f32::NAN } else { work.weight }
}

/// The tracer of a run that is being traced.
fn tracing(ends: &Option<DeviceEnds>) -> Option<&Tracer> {
    ends.as_ref()?.gauges.tracing()
}

/// What the loop waits for when nothing is in flight.
enum Idle {
    ForMessage,
    ForBatch,
}
