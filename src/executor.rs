//! What trainer and device agree on: an executor takes filled slots, runs passes over them in order,
//! and gives the slots back with what came out. There are two, [`gpu`](crate::gpu) and [`cpu`](crate::cpu).

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::Slot;
use crate::error::{Error, Result};
use crate::graph::Arena;
use crate::graph::op::{CONTROL_LEN, METRICS_LEN};
use crate::graph::plan::Pass;
use crate::report::trace::Tracer;

/// The device a program runs on.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct DeviceInfo {
    /// The adapter's or processor's name.
    pub name: String,
    /// `cpu`, `vulkan`, `metal`, `dx12`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software`, `twins`.
    pub kind: String,
    /// Driver and its version, where there is one.
    pub driver: String,
    /// Device memory this program has allocated, in bytes.
    pub allocated_bytes: u64,
    /// Pipelines compiled (0 for the twins).
    pub pipelines: usize,
    /// Seconds spent opening the device.
    pub open_s: f64,
    /// Seconds spent choosing among variants of kernels.
    pub tune_s: f64,
    /// Variants that were timed for it; none where all was known from before.
    pub tuned: usize,
    /// Seconds spent compiling shaders and creating pipelines.
    pub compile_s: f64,
    /// Whether its shaders have 16-bit floats.
    pub half: bool,
}

impl DeviceInfo {
    /// Whether it computes on the processor, as twins and software adapters do: beside whatever prepares batches.
    pub fn shares_cores(&self) -> bool {
        matches!(self.kind.as_str(), "twins" | "software")
    }

    /// Whether it is the same device with the same driver, as far as those tell: only there does a run go on bit by bit.
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { name, backend, kind, driver, .. } = self;
        (name, backend, kind, driver) == (&other.name, &other.backend, &other.kind, &other.driver)
    }
}

/// How much to tune: on an adapter, dense operations have variants that differ in nothing but time.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Tune {
    /// Not at all, nor is what earlier runs found used: variants follow from shapes alone.
    Off,
    /// For three seconds at most; what is left then follows from shapes.
    #[default]
    Fast,
    /// Everything, each variant for as long as a steady time takes.
    Full,
}

impl FromStr for Tune {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "off" => Ok(Tune::Off),
            "fast" => Ok(Tune::Fast),
            "full" => Ok(Tune::Full),
            _ => {
                let message = format!("found {name:?}, expected off, fast or full");
                Err(Error::config("--tune", message))
            }
        }
    }
}

/// What a pass should bring back besides its metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The model's output; only for passes that infer.
    pub output: bool,
    /// The persistent arenas as they are right after this pass.
    pub snapshot: bool,
    /// The batch of the pass before once more, in place of what the slot holds, which is not copied. For measurements; the
    /// twins read every slot where it lies.
    pub resident: bool,
}

/// The arenas of a checkpoint, taken between two steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Each persistent arena with its contents.
    pub arenas: Vec<(Arena, Vec<f32>)>,
}

/// What came out of one pass.
#[derive(Debug)]
pub struct Done {
    /// Which pass it was.
    pub pass: Pass,
    /// The slot, empty and writable again.
    pub slot: Slot,
    /// Sum of losses, sum of correct ones, count, 0: see [`Op::StepMetrics`](crate::graph::op::Op::StepMetrics).
    pub metrics: [f32; METRICS_LEN],
    /// The optimizer's control after the pass; zeros where the program does not train.
    pub control: [f32; CONTROL_LEN],
    /// The model's output, if wanted.
    pub output: Option<Vec<f32>>,
    /// The persistent arenas, if wanted.
    pub snapshot: Option<Snapshot>,
    /// Time the device was busy with this pass, where it can be told.
    pub device_busy: Option<Duration>,
    /// Time the device took to copy the slot before that, where it can be told; not part of `device_busy`.
    pub copied: Option<Duration>,
    /// Time this host spent on recording the pass, mostly while the device was busy with those before it, and on
    /// handing it to the driver; a software adapter may compute meanwhile. Zero for the twins, whose pass needs neither.
    pub recorded: Duration,
    /// See `recorded`.
    pub handed_over: Duration,
}

/// Runs a program. Owned and called by the `device` thread alone.
pub trait Executor: Send {
    /// What it runs on.
    fn device(&self) -> DeviceInfo;

    /// The ring of slots, all empty and writable. Called once.
    ///
    /// # Errors
    /// When the memory cannot be mapped.
    fn take_slots(&mut self) -> Result<Vec<Slot>>;

    /// Starts a pass over a filled slot whose header has been written. Does not wait for it.
    ///
    /// # Errors
    /// When the device is lost or out of memory.
    fn submit(&mut self, pass: Pass, slot: Slot, wants: Wants) -> Result<()>;

    /// The next finished pass, in the order of submission. Waits at most `patience` for it.
    ///
    /// # Errors
    /// When the device is lost.
    fn collect(&mut self, patience: Duration) -> Result<Option<Done>>;

    /// Passes submitted and not collected.
    fn in_flight(&self) -> usize;

    /// Writes `values` into an arena, from `offset` elements on. Only between runs. [`Arena::Consts`] is full from the
    /// beginning.
    ///
    /// # Errors
    /// When the device is lost.
    fn load(&mut self, arena: Arena, offset: usize, values: &[f32]) -> Result<()>;

    /// Reads a whole arena, after waiting for all passes in flight. Only between runs.
    ///
    /// # Errors
    /// When the device is lost.
    fn store(&mut self, arena: Arena) -> Result<Vec<f32>>;

    /// Has passes from now on written into a trace, dispatch by dispatch, on the host's clock, until the trace is over.
    /// The results stay the same bit by bit; the passes may take longer. Passes are numbered in the order of
    /// submission, from 0.
    ///
    /// # Errors
    /// When the device lacks the memory for it.
    fn trace(&mut self, tracer: Arc<Tracer>) -> Result<()>;

    /// How many device objects (buffers, pipelines, bind groups) were created so far; it must not grow
    /// from step to step.
    fn objects_created(&self) -> usize;
}
