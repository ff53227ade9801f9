//! The executor: submits passes and collects what comes back, never waiting in between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compute::Compiled;
use super::context::{Context, HANG_TIMEOUT, PollFailure};
use super::dispatch_clock::DispatchClock;
use super::lowering::Lowering;
use super::objects::Objects;
use super::readback::{Arrivals, Arrived, Kind, Pool, Read, map_on_submit};
use super::survey::DeviceMemory;
use super::timestamps::{TIMESTAMP_BYTES, Timestamps, tick};
use super::tune::Tuner;
use super::upload::Ring;
use super::waited::{LOOK_MAX, Waited};
use crate::batch::Slot;
use crate::error::{Error, Result};
use crate::executor::{self, DeviceInfo, Done, Snapshot, Tune, Wants};
use crate::faults::{self, At};
use crate::graph::Arena;
use crate::graph::op::{CONTROL_LEN, METRICS_LEN};
use crate::graph::plan::{Pass, Program};
use crate::report::trace::Tracer;

/// Bytes of a report: control, metrics, and two timestamps.
pub(super) const REPORT_BYTES: usize = 4 * (CONTROL_LEN + METRICS_LEN) + TIMESTAMP_BYTES;
/// Reports that each slot has: of its pass in flight, and of the next one, which is recorded meanwhile.
pub(super) const REPORTS: usize = 2;

/// Runs a program on a GPU.
#[derive(Debug)]
pub struct Executor {
    objects: Objects,
    program: Arc<Program>,
    compiled: Compiled,
    ring: Ring,
    pool: Pool,
    timestamps: Option<Timestamps>,
    dispatch_clock: Option<DispatchClock>,
    /// For each slot its next pass, recorded while the device was still busy with others: what a slot brings
    /// then waits for no recording.
    ahead: Vec<Option<Recording>>,
    in_flight: VecDeque<InFlight>,
    /// How long a pass may take.
    hang_timeout: Duration,
    /// How long the oldest pass in flight has been waited for.
    waited: Waited,
    compile_s: f64,
    tune_s: f64,
    tuned: usize,
    /// When the last pass that came back ended, by the device's clock.
    last_end: Option<u64>,
}

/// A recorded pass over a slot.
#[derive(Debug)]
struct Recording {
    pass: Pass,
    wants: Wants,
    commands: wgpu::CommandBuffer,
    arrivals: Arc<Arrivals>,
    reads: Vec<Read>,
    from: Instant,
    took: Duration,
    /// Whether its dispatches are timed.
    traced: bool,
}

/// A submitted pass.
#[derive(Debug)]
struct InFlight {
    pass: Pass,
    slot: usize,
    submission: wgpu::SubmissionIndex,
    /// Whether the pass before was still in flight when this one was submitted.
    queued: bool,
    arrivals: Arc<Arrivals>,
    reads: Vec<Read>,
    recorded: Duration,
    handed_over: Duration,
    /// Since when, if its dispatches are timed.
    traced: Option<Instant>,
}

impl Executor {
    /// Allocates and compiles everything that `program` needs, with a ring of `slots` slots. Nothing is
    /// tuned.
    ///
    /// # Errors
    /// When the device lacks memory or a limit, or the driver refuses a shader.
    pub fn new(context: Arc<Context>, program: Arc<Program>, slots: usize) -> Result<Self> {
        Self::tuned(context, program, slots, &Tuner::new(Tune::Off))
    }

    /// As [`Executor::new`], with what `tuner` chooses. It is asked before anything else is allocated.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn tuned(
        context: Arc<Context>,
        program: Arc<Program>,
        slots: usize,
        tuner: &Tuner,
    ) -> Result<Self> {
        let tuning = tuner.program(&program, &context);
        context.check()?;
        let start = Instant::now();
        if program.stores_half() && !context.has_half() {
            return Err(Error::device(
                context.name(),
                "its shaders have no 16-bit floats, expected SHADER_F16",
            )
            .hint("--precision f32, or another of the adapters that `inflight devices` lists"));
        }
        let lowering = Lowering::new(&program, &tuning.choices, &context, slots);
        DeviceMemory::new(&lowering, slots, &context).check_on(&context, &program)?;
        let program = Arc::clone(&lowering.program);
        let mut objects = Objects::new(context);
        let compiled = Compiled::new(lowering, &mut objects)?;
        let compile_s = start.elapsed().as_secs_f64();
        let ring = Ring::new(slots, program.slot.slot_bytes, &mut objects)?;
        let reports = std::iter::repeat_n((Kind::Report, REPORT_BYTES), REPORTS * slots);
        // A run that has no room for its first checkpoint is to fail before its first step.
        let trains = program.plans.contains_key(&Pass::Train);
        let copied = copied(&program).filter(|_| trains);
        let pool = Pool::with(reports.chain(copied), &mut objects)?;
        let timestamps = Timestamps::new(slots, &mut objects)?;
        let mut executor = Self {
            objects,
            compiled,
            ring,
            pool,
            timestamps,
            dispatch_clock: None,
            ahead: (0..slots).map(|_| None).collect(),
            in_flight: VecDeque::with_capacity(slots),
            hang_timeout: HANG_TIMEOUT,
            waited: Waited::from(start),
            compile_s,
            last_end: None,
            tune_s: tuning.seconds,
            tuned: tuning.timed,
            program: Arc::clone(&program),
        };
        if !program.consts.is_empty() {
            executor::Executor::load(&mut executor, Arena::Consts, 0, &program.consts)?;
        }
        Ok(executor)
    }

    fn context(&self) -> &Context {
        &self.objects.context
    }

    /// Takes the buffers for what a pass brings back.
    fn reads(&mut self, wants: Wants) -> Result<Vec<Read>> {
        let mut kinds = vec![(Kind::Report, REPORT_BYTES)];
        if wants.output {
            kinds.push((Kind::Output, self.output()?.2 as usize));
        }
        if wants.snapshot {
            kinds.extend(copied(&self.program));
        }
        let take = |(kind, bytes)| self.pool.take(kind, bytes, &mut self.objects);
        kinds.into_iter().map(take).collect()
    }

    /// Where the model's output lies: buffer, offset and size in bytes.
    fn output(&self) -> Result<(&wgpu::Buffer, u64, u64)> {
        let missing = || Error::graph("output", "the program has no output to bring back");
        let plan = self.program.output_plan().ok_or_else(missing)?;
        let location = plan.location(self.program.output);
        let buffer = self.compiled.memory.buffer(location.place).ok_or_else(missing)?;
        Ok((
            buffer,
            location.offset_bytes as u64,
            4 * plan.tensor(self.program.output).len() as u64,
        ))
    }

    /// Records the copies that fill `reads`.
    fn copy_results(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        slot: usize,
        reads: &[Read],
        traced: bool,
    ) -> Result<()> {
        let arenas = &self.compiled.memory.arenas;
        for read in reads {
            match read.kind {
                Kind::Report => {
                    let control = 4 * CONTROL_LEN as u64;
                    let metrics = 4 * METRICS_LEN as u64;
                    if let (Some(state), Some(at)) =
                        (arenas.get(&Arena::State), self.program.control_offset)
                    {
                        read.copy(encoder, (state, 4 * at as u64), 0, control);
                    }
                    if let Some(from) = arenas.get(&Arena::Metrics) {
                        read.copy(encoder, (from, 0), control, metrics);
                    }
                    if let Some(timestamps) = self.timestamps.as_ref().filter(|_| !traced) {
                        timestamps.resolve(slot, encoder, read, control + metrics);
                    }
                }
                Kind::Output => {
                    let (buffer, offset, bytes) = self.output()?;
                    read.copy(encoder, (buffer, offset), 0, bytes);
                }
                Kind::Arena(arena) => {
                    let bytes = 4 * self.program.arenas[&arena] as u64;
                    read.copy(encoder, (&arenas[&arena], 0), 0, bytes);
                }
            }
        }
        Ok(())
    }

    /// Records a pass over a slot, and the way of its results.
    fn record(&mut self, slot: usize, pass: Pass, wants: Wants) -> Result<Recording> {
        let from = Instant::now();
        let reads = self.reads(wants)?;
        let mut encoder = self.context().device.create_command_encoder(&Default::default());
        let (buffer, batch) = (self.ring.buffer(slot), &self.compiled.memory.batch);
        if !wants.resident {
            encoder.copy_buffer_to_buffer(buffer, 0, batch, 0, Some(buffer.size()));
        }
        let arrivals = Arc::new(Arrivals::default());
        let clock = self.dispatch_clock.as_ref().filter(|clock| clock.is_on());
        let traced = clock.is_some();
        match clock {
            Some(clock) => clock.encode(&self.compiled, pass, slot, &mut encoder, &arrivals)?,
            None => {
                let timestamp_writes = self.timestamps.as_ref().map(|t| t.writes(slot));
                self.compiled.encode(pass, &mut encoder, timestamp_writes)?;
            }
        }
        let arenas = &self.compiled.memory.arenas;
        if let (Pass::Train, Some(settled)) = (pass, arenas.get(&Arena::Settled)) {
            encoder.copy_buffer_to_buffer(&arenas[&Arena::State], 0, settled, 0, None);
        }
        self.copy_results(&mut encoder, slot, &reads, traced)?;
        map_on_submit(&encoder, buffer, wgpu::MapMode::Write, &arrivals);
        reads.iter().for_each(|read| read.map_on_submit(&encoder, &arrivals));
        let commands = encoder.finish();
        let took = from.elapsed();
        Ok(Recording { pass, wants, commands, arrivals, reads, from, took, traced })
    }

    /// What was recorded for this slot while others ran, if that is what is now wanted of it.
    fn recorded_ahead(&mut self, slot: usize, pass: Pass, wants: Wants) -> Option<Recording> {
        let recording = self.ahead[slot].take()?;
        let traced = self.dispatch_clock.as_ref().is_some_and(DispatchClock::is_on);
        if (recording.pass, recording.wants, recording.traced) == (pass, wants, traced) {
            return Some(recording);
        }
        recording.reads.into_iter().for_each(|read| self.pool.give_back(read));
        None
    }

    /// Waits until `arrivals` are complete, at most `patience`; whether they are.
    fn wait(
        &self,
        arrivals: &Arrivals,
        submission: &wgpu::SubmissionIndex,
        patience: Duration,
    ) -> Result<bool> {
        let context = self.context();
        let broken = |failure| match failure {
            PollFailure::Broken(error) => error,
            PollFailure::Timeout => context.broken("the device does not answer"),
        };
        let start = Instant::now();
        context.poll(wgpu::PollType::Poll).map_err(broken)?;
        while arrivals.state() == Arrived::NotYet {
            let timeout = patience.saturating_sub(start.elapsed());
            if timeout.is_zero() {
                break;
            }
            let submission_index = Some(submission.clone());
            match context.poll(wgpu::PollType::Wait { submission_index, timeout: Some(timeout) }) {
                // Another thread may have polled first, and be about to run our callbacks.
                Ok(()) => std::thread::yield_now(),
                Err(PollFailure::Timeout) => {}
                Err(failure) => return Err(broken(failure)),
            }
        }
        context.check()?;
        match arrivals.state() {
            Arrived::All => Ok(true),
            Arrived::Failed => Err(context.broken("results cannot be read back")),
            Arrived::NotYet => Ok(false),
        }
    }

    /// The results of a pass whose mappings have arrived.
    fn done(&mut self, pass: InFlight) -> Result<Done> {
        let lost = |error: wgpu::MapRangeError| self.objects.context.broken(error);
        let slot = self.ring.lend(pass.slot).map_err(lost)?;
        let context = Arc::clone(&self.objects.context);
        let traced_s = match (pass.traced, &mut self.dispatch_clock) {
            (Some(since), Some(clock)) => clock.finish(&context, pass.pass, pass.slot, since)?,
            _ => None,
        };
        let mut done = Done {
            pass: pass.pass,
            slot,
            metrics: [0.0; METRICS_LEN],
            control: [0.0; CONTROL_LEN],
            output: None,
            snapshot: None,
            device_busy: None,
            copied: None,
            recorded: pass.recorded,
            handed_over: pass.handed_over,
        };
        for read in pass.reads {
            let kind = read.kind;
            match kind {
                Kind::Report => {
                    let words: Vec<u32> = self.pool.finish(read).map_err(lost)?;
                    let floats = |words: &[u32]| {
                        words.iter().map(|&w| f32::from_bits(w)).collect::<Vec<_>>()
                    };
                    let (control, rest) = words.split_at(CONTROL_LEN);
                    let (metrics, times) = rest.split_at(METRICS_LEN);
                    done.control.copy_from_slice(&floats(control));
                    done.metrics.copy_from_slice(&floats(metrics));
                    match &self.timestamps {
                        Some(timestamps) if pass.traced.is_none() => {
                            done.device_busy = timestamps.elapsed(times);
                            // A device that had its next pass waiting did nothing between the two but copy its slot.
                            let ended = self.last_end.filter(|_| pass.queued);
                            done.copied =
                                ended.and_then(|end| timestamps.between(end, tick(times, 0)));
                            self.last_end = Some(tick(times, 2));
                        }
                        _ => {
                            done.device_busy = traced_s.map(Duration::from_secs_f64);
                            self.last_end = None;
                        }
                    }
                }
                Kind::Output => done.output = Some(self.pool.finish(read).map_err(lost)?),
                Kind::Arena(arena) => {
                    let values = self.pool.finish(read).map_err(lost)?;
                    done.snapshot
                        .get_or_insert_with(Snapshot::default)
                        .arenas
                        .push((arena, values));
                }
            }
        }
        Ok(done)
    }

    fn arena(&self, arena: Arena) -> Result<(&wgpu::Buffer, usize)> {
        let buffer = self.compiled.memory.arenas.get(&arena);
        buffer.map(|buffer| (buffer, self.program.arenas[&arena])).ok_or_else(|| {
            Error::graph(format!("{arena:?}"), "the program does not use this arena")
        })
    }
}

/// What a checkpoint copies, with its bytes.
fn copied(program: &Program) -> impl Iterator<Item = (Kind, usize)> + '_ {
    program.persistent_arenas().map(|arena| (Kind::Arena(arena), 4 * program.arenas[&arena]))
}

impl executor::Executor for Executor {
    fn device(&self) -> DeviceInfo {
        let context = self.context();
        DeviceInfo {
            allocated_bytes: self.objects.allocated_bytes,
            pipelines: self.compiled.pipelines.len(),
            tune_s: self.tune_s,
            tuned: self.tuned,
            compile_s: self.compile_s,
            ..context.device_info()
        }
    }

    fn take_slots(&mut self) -> Result<Vec<Slot>> {
        let context = self.context();
        let lend = |index| self.ring.lend(index).map_err(|error| context.broken(error));
        (0..self.ring.len()).map(lend).collect()
    }

    fn submit(&mut self, pass: Pass, slot: Slot, wants: Wants) -> Result<()> {
        self.context().check()?;
        let index = self.ring.take_back(slot)?;
        let recording = match self.recorded_ahead(index, pass, wants) {
            Some(recording) => recording,
            None => self.record(index, pass, wants)?,
        };
        if faults::due(At::Submission) {
            self.context().destroy();
        }
        let start = Instant::now();
        let submission = self.context().queue.submit([recording.commands]);
        let handed_over = start.elapsed();
        self.context().check()?;
        let mut arrivals = recording.arrivals;
        if faults::due(At::Hang) {
            // It runs, but nobody is told that it is done.
            arrivals = Arc::new(Arrivals::never());
            self.hang_timeout = Duration::ZERO;
        }
        let clock = self.dispatch_clock.as_ref().filter(|_| recording.traced);
        let traced = clock.map(|clock| {
            clock.submitted([recording.from, start, start + handed_over]);
            recording.from
        });
        if self.in_flight.is_empty() {
            self.waited = Waited::from(Instant::now());
        }
        self.in_flight.push_back(InFlight {
            pass,
            slot: index,
            submission,
            queued: !self.in_flight.is_empty(),
            arrivals,
            reads: recording.reads,
            recorded: recording.took,
            handed_over,
            traced,
        });
        // The next pass of this slot is most likely the same.
        if wants == Wants::default() && !recording.traced {
            self.ahead[index] = Some(self.record(index, pass, wants)?);
        }
        Ok(())
    }

    fn collect(&mut self, patience: Duration) -> Result<Option<Done>> {
        let Some(oldest) = self.in_flight.front() else {
            return Ok(None);
        };
        if !self.wait(&oldest.arrivals, &oldest.submission, patience)? {
            let waited = self.waited.until(Instant::now(), patience);
            return match waited > self.hang_timeout {
                true => Err(self.objects.context.hangs(waited)),
                false => Ok(None),
            };
        }
        self.waited = Waited::from(Instant::now());
        let oldest = self.in_flight.pop_front();
        oldest.map(|oldest| self.done(oldest)).transpose()
    }

    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn load(&mut self, arena: Arena, offset: usize, values: &[f32]) -> Result<()> {
        self.context().check()?;
        let (buffer, len) = self.arena(arena)?;
        if offset + values.len() > len {
            let message = format!("has {len} elements, {} at {offset} do not fit", values.len());
            return Err(Error::graph(format!("{arena:?}"), message));
        }
        let context = self.context();
        let bytes = bytemuck::cast_slice(values);
        context.scoped(|| context.queue.write_buffer(buffer, 4 * offset as u64, bytes)).map_err(
            |cause| {
                self.objects
                    .error(format!("{} bytes cannot be uploaded", bytes.len()))
                    .caused_by(cause)
            },
        )?;
        context.check()
    }

    fn store(&mut self, arena: Arena) -> Result<Vec<f32>> {
        self.context().check()?;
        let bytes = 4 * self.arena(arena)?.1;
        let read = self.pool.take(Kind::Arena(arena), bytes, &mut self.objects)?;
        let mut encoder = self.context().device.create_command_encoder(&Default::default());
        let (buffer, _) = self.arena(arena)?;
        read.copy(&mut encoder, (buffer, 0), 0, bytes as u64);
        let arrivals = Arc::new(Arrivals::default());
        read.map_on_submit(&encoder, &arrivals);
        // Submissions run in order, so this one waits for all passes in flight.
        let submission = self.context().queue.submit([encoder.finish()]);
        let timeout = HANG_TIMEOUT * (1 + self.in_flight.len() as u32);
        let mut waited = Waited::from(Instant::now());
        while !self.wait(&arrivals, &submission, LOOK_MAX)? {
            let so_far = waited.until(Instant::now(), LOOK_MAX);
            if so_far > timeout {
                return Err(self.objects.context.hangs(so_far));
            }
        }
        let context = Arc::clone(&self.objects.context);
        self.pool.finish(read).map_err(|error| context.broken(error))
    }

    fn trace(&mut self, tracer: Arc<Tracer>) -> Result<()> {
        let slots = self.ring.len();
        self.dispatch_clock = DispatchClock::new(tracer, slots, &self.compiled, &mut self.objects)?;
        Ok(())
    }

    fn objects_created(&self) -> usize {
        self.objects.created
    }
}
