//! The executor over the twins: a pass runs to its end when it is submitted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::ThreadPool;

use super::call::{Scratch, ScratchLen};
use super::memory::{Memory, Span, Step};
use super::real::Real;
use crate::batch::{Slot, StepHeader};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::executor::{self, DeviceInfo, Done, Snapshot, Wants};
use crate::faults::{self, At};
use crate::graph::op::{CONTROL_LEN, METRICS_LEN};
use crate::graph::plan::{Pass, Plan, Program};
use crate::graph::{Arena, Node};
use crate::report::trace::{Dispatched, Tracer};

/// Runs a program on the twins, in `f32` unless asked for `f64`.
///
/// All memory is allocated when it is made. Results do not depend on the number of threads.
#[derive(Debug)]
pub struct Executor<T: Real = f32> {
    program: Arc<Program>,
    memory: Memory<T>,
    scratch: Scratch<T>,
    scratch_len: ScratchLen,
    passes: BTreeMap<Pass, Vec<Step>>,
    output: Option<Span>,
    slots: Vec<Slot>,
    slot_count: usize,
    done: VecDeque<Done>,
    pool: Option<Arc<ThreadPool>>,
    open_s: f64,
    tracing: Option<Tracing>,
}

/// What a trace of the twins is made of.
#[derive(Debug)]
struct Tracing {
    tracer: Arc<Tracer>,
    names: BTreeMap<Pass, Vec<String>>,
    /// When each operation of the pass ended.
    ends: Vec<Instant>,
    passes: u64,
}

impl Tracing {
    /// Writes the pass that began at `start`.
    fn write(&mut self, pass: Pass, start: Instant) {
        let us = |at: &Instant| self.tracer.us(*at);
        let starts = std::iter::once(&start).chain(&self.ends);
        let names = self.names.get(&pass).into_iter().flatten();
        let dispatches = starts.zip(&self.ends).zip(names).map(|((from, to), name)| Dispatched {
            name,
            from_us: us(from),
            to_us: us(to),
        });
        let dispatches: Vec<_> = dispatches.collect();
        self.tracer.device_pass(&format!("{pass:?}"), self.passes, &dispatches);
        self.passes += 1;
    }
}

impl Executor {
    /// An executor in `f32`, with a ring of `slots`, in rayon's global pool.
    ///
    /// # Errors
    /// When the program binds memory that it does not have.
    pub fn new(program: impl Into<Arc<Program>>, slots: usize) -> Result<Self> {
        Self::in_precision(program, slots)
    }
}

impl<T: Real> Executor<T> {
    /// As [`Executor::new`], in the precision of `T`.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn in_precision(program: impl Into<Arc<Program>>, slots: usize) -> Result<Self> {
        let start = Instant::now();
        let program = program.into();
        let memory = Memory::new(&program);
        let mut passes = BTreeMap::new();
        for (&pass, plan) in &program.plans {
            let steps = plan.nodes.iter().map(|node| memory.step(plan, node));
            passes.insert(pass, steps.collect::<Result<Vec<Step>>>()?);
        }
        let output =
            program.output_plan().map(|plan| memory.span(plan, program.output)).transpose()?;
        let scratch_len = passes
            .values()
            .flatten()
            .map(Step::scratch_len)
            .fold(ScratchLen::default(), ScratchLen::max);
        let slot = |index| Slot::host(index, program.slot.slot_bytes);
        Ok(Self {
            memory,
            scratch: Scratch::new(scratch_len, rayon::current_num_threads()),
            scratch_len,
            passes,
            output,
            slots: (0..slots).map(slot).collect(),
            slot_count: slots,
            done: VecDeque::with_capacity(slots),
            pool: None,
            program,
            open_s: start.elapsed().as_secs_f64(),
            tracing: None,
        })
    }

    /// Runs in a pool of its own with so many threads, instead of rayon's global one.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn with_threads(self, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("twins-{i}"))
            .build()
            .map_err(|error| {
                Error::device("threads", format!("{threads} could not be started")).caused_by(error)
            })?;
        Ok(self.with_pool(Arc::new(pool)))
    }

    /// Runs in a pool that others may use too.
    pub fn with_pool(mut self, pool: Arc<ThreadPool>) -> Self {
        self.scratch = Scratch::new(self.scratch_len, pool.current_num_threads());
        self.pool = Some(pool);
        self
    }

    /// The contents of an arena; empty where the program does not use it.
    pub fn arena(&self, arena: Arena) -> &[T] {
        self.memory.arena(arena).unwrap_or_default()
    }

    /// As [`Executor::arena`], to be changed between passes.
    pub fn arena_mut(&mut self, arena: Arena) -> &mut [T] {
        self.memory.arena_mut(arena).unwrap_or_default()
    }

    /// Runs all operations of a pass.
    fn run(&mut self, pass: Pass, slot: &Slot) -> Result<()> {
        let refuse = |message: String| {
            Error::new(Stage::Compute, ErrorKind::Device, format!("slot {}", slot.index), message)
        };
        let steps = self
            .passes
            .get(&pass)
            .ok_or_else(|| refuse(format!("the program has no {pass:?} pass")))?;
        let bytes = slot
            .bytes()
            .filter(|bytes| bytes.len() >= self.program.slot.slot_bytes)
            .ok_or_else(|| refuse("is not one of this executor's slots".into()))?;
        let header: StepHeader = bytemuck::pod_read_unaligned(&bytes[..size_of::<StepHeader>()]);
        let batch_size = self.program.slot.batch_size;
        // All samples of an evaluated batch may have been left out; a step needs one.
        let least = usize::from(pass != Pass::Eval);
        if !(least..=batch_size).contains(&(header.count as usize)) {
            let message =
                format!("holds {} samples, expected {least} to {batch_size}", header.count);
            return Err(refuse(message));
        }
        self.memory.stage(&self.program, bytes);
        let (memory, scratch) = (&mut self.memory, &self.scratch);
        let mut tracing = self.tracing.as_mut().filter(|tracing| !tracing.tracer.is_over());
        if let Some(tracing) = &mut tracing {
            tracing.ends.clear();
        }
        let start = Instant::now();
        let mut work = || {
            for step in steps {
                memory.run(step, bytes, &header, scratch);
                if let Some(tracing) = &mut tracing {
                    tracing.ends.push(Instant::now());
                }
            }
        };
        // The whole pass runs inside the pool: entering it anew for each operation costs a wake-up each.
        match &self.pool {
            Some(pool) => pool.install(work),
            None => rayon::scope(|_| work()),
        }
        if let Some(tracing) = tracing {
            tracing.write(pass, start);
        }
        if pass == Pass::Train && self.program.settles() {
            self.memory.copy(Arena::State, Arena::Settled);
        }
        Ok(())
    }

    /// The first `N` numbers of an arena from `offset` on; zeros where the program does not use it.
    fn words<const N: usize>(&self, arena: Arena, offset: usize) -> [f32; N] {
        let mut words = [0.0; N];
        let stored = self.arena(arena).get(offset..).unwrap_or_default();
        words.iter_mut().zip(stored).for_each(|(word, x)| *word = x.to_f32());
        words
    }

    fn snapshot(&self) -> Snapshot {
        let arenas = self.program.persistent_arenas();
        Snapshot { arenas: arenas.map(|arena| (arena, to_f32(self.arena(arena)))).collect() }
    }
}

fn to_f32<T: Real>(x: &[T]) -> Vec<f32> {
    x.iter().map(|x| x.to_f32()).collect()
}

impl<T: Real> executor::Executor for Executor<T> {
    fn device(&self) -> DeviceInfo {
        let slots = self.slot_count * self.program.slot.slot_bytes;
        let allocated = self.memory.bytes() + self.scratch.bytes() + slots;
        DeviceInfo { allocated_bytes: allocated as u64, open_s: self.open_s, ..device_info() }
    }

    fn take_slots(&mut self) -> Result<Vec<Slot>> {
        Ok(std::mem::take(&mut self.slots))
    }

    fn submit(&mut self, pass: Pass, slot: Slot, wants: Wants) -> Result<()> {
        let start = Instant::now();
        if faults::due(At::Submission) || faults::due(At::Hang) {
            return Err(Error::device("twins", "the device was lost, as planned by a test"));
        }
        self.run(pass, &slot)?;
        let device_busy = Some(start.elapsed());
        let output = match &self.output {
            Some(span) if wants.output && pass.infers() => Some(to_f32(self.memory.numbers(span))),
            _ => None,
        };
        self.done.push_back(Done {
            pass,
            slot,
            metrics: self.words::<METRICS_LEN>(Arena::Metrics, 0),
            control: match self.program.control_offset {
                Some(offset) => self.words(Arena::State, offset),
                None => [0.0; CONTROL_LEN],
            },
            output,
            snapshot: wants.snapshot.then(|| self.snapshot()),
            device_busy,
            copied: None,
            recorded: Duration::ZERO,
            handed_over: Duration::ZERO,
        });
        Ok(())
    }

    fn collect(&mut self, _patience: Duration) -> Result<Option<Done>> {
        Ok(self.done.pop_front())
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }

    fn load(&mut self, arena: Arena, offset: usize, values: &[f32]) -> Result<()> {
        let memory = self.arena_mut(arena);
        let len = memory.len();
        let range = offset..offset + values.len();
        let Some(to) = memory.get_mut(range.clone()) else {
            let message = format!("elements {range:?} do not fit, it has {len}");
            return Err(Error::device(format!("arena {arena:?}"), message));
        };
        to.iter_mut().zip(values).for_each(|(to, &x)| *to = T::of(f64::from(x)));
        Ok(())
    }

    fn store(&mut self, arena: Arena) -> Result<Vec<f32>> {
        Ok(to_f32(self.arena(arena)))
    }

    fn trace(&mut self, tracer: Arc<Tracer>) -> Result<()> {
        let name =
            |node: &Node| format!("{} {}", node.op.name(), node.scope).trim_end().to_string();
        let names = |plan: &Plan| plan.nodes.iter().map(name).collect::<Vec<_>>();
        let names: BTreeMap<Pass, Vec<String>> =
            self.program.plans.iter().map(|(&pass, plan)| (pass, names(plan))).collect();
        let ends = Vec::with_capacity(names.values().map(Vec::len).max().unwrap_or(0));
        self.tracing = Some(Tracing { tracer, names, ends, passes: 0 });
        Ok(())
    }

    fn objects_created(&self) -> usize {
        self.memory.buffers() + self.scratch.buffers() + self.slot_count
    }
}

/// The processor that the twins run on.
pub fn device_info() -> DeviceInfo {
    DeviceInfo {
        name: processor_name().unwrap_or_else(|| std::env::consts::ARCH.into()),
        backend: "cpu".into(),
        kind: "twins".into(),
        ..DeviceInfo::default()
    }
}

/// The processor's name, where the system tells it.
fn processor_name() -> Option<String> {
    let name = if cfg!(target_os = "linux") {
        let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = info.lines().find(|line| line.starts_with("model name"))?;
        line.split_once(':')?.1.to_string()
    } else if cfg!(target_os = "macos") {
        let mut command = std::process::Command::new("sysctl");
        let output = command.args(["-n", "machdep.cpu.brand_string"]).output().ok()?;
        String::from_utf8(output.stdout).ok()?
    } else {
        std::env::var("PROCESSOR_IDENTIFIER").ok()?
    };
    Some(name.trim().to_string()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
