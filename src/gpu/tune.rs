//! Autotuning: each dense operation of a program is timed with each tile that suits it, on memory of its own,
//! the costliest first and within a budget; the fastest is taken. A tile never changes a bit of a result.
//!
//! What was found is kept on disk beside the compiled pipelines, so that a second start times nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::dense::{self, Tile};
use super::kernel::{Bound, DeviceCaps, Lowered};
use super::lower::lower;
use super::pipeline_cache::{folder, write_atomically};
use super::stopwatch::{Effort, Stopwatch, Trial};
use crate::error::Result;
use crate::executor::Tune;
use crate::graph::cost::Cost;
use crate::graph::op::Op;
use crate::graph::plan::{Pass, Plan, Program};
use crate::graph::{Node, Tensor};

/// What [`Tune::Fast`] spends on a program at most.
const FAST: Duration = Duration::from_secs(3);
/// A tile must beat the one that is taken by itself by this factor, so that noise alone changes nothing.
const CLEARLY: f64 = 0.97;
/// A tile that takes this many times the best one's time at its first try is not timed again.
const HOPELESS: f64 = 1.3;

/// An operation to tune, with the tensors it binds.
#[derive(Clone, Debug)]
pub struct Task {
    /// The operation.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<Tensor>,
    /// What it writes.
    pub outputs: Vec<Tensor>,
    /// How often it runs.
    pub times: usize,
}

impl Task {
    fn tensors(&self) -> (Vec<&Tensor>, Vec<&Tensor>) {
        (self.inputs.iter().collect(), self.outputs.iter().collect())
    }
}

/// The tiles chosen for a program's operations.
#[derive(Clone, Debug, Default)]
pub struct Choices(HashMap<String, Tile>);

impl Choices {
    /// The tile chosen for an operation, if one was.
    pub fn get(&self, op: &Op, bound: Bound) -> Option<Tile> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&key(op, bound)).copied()
    }

    /// The dispatches of an operation, by the tile chosen for it.
    pub fn lower(&self, op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
        match self.get(op, bound) {
            Some(tile) => dense::lower(op, bound, caps, Some(tile)),
            None => lower(op, bound, caps),
        }
    }
}

/// What tuning came to.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// The choices.
    pub choices: Choices,
    /// Tiles that were timed for it, over all operations; 0 where all was known.
    pub timed: usize,
    /// Seconds it took, with everything around it.
    pub seconds: f64,
}

/// Where and how long to tune.
#[derive(Clone, Debug)]
pub struct Tuner {
    how: Tune,
    budget: Duration,
    folder: Option<PathBuf>,
}

impl Tuner {
    /// As `how` says, with what is kept in the user's cache folder.
    pub fn new(how: Tune) -> Self {
        let budget = if how == Tune::Full { Duration::MAX } else { FAST };
        Self { how, budget, folder: folder() }
    }

    /// Spends at most this, to within the tile being timed.
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Keeps what is found in this folder.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Tunes the operations of all passes. It never fails: what cannot be timed follows from its shape.
    pub fn program(&self, program: &Program, context: &Arc<Context>) -> Tuning {
        let tasks = program.plans.iter().flat_map(|(&pass, plan)| {
            // A step evaluates rarely.
            let times = if pass == Pass::Eval { 0 } else { 1 };
            plan.nodes.iter().map(move |node| task(plan, node, times))
        });
        self.tasks(tasks, context)
    }

    /// As [`Tuner::program`], for operations.
    pub fn tasks(&self, tasks: impl Iterator<Item = Task>, context: &Arc<Context>) -> Tuning {
        let began = Instant::now();
        if self.how == Tune::Off {
            return Tuning::default();
        }
        let caps = context.caps();
        let file = self.folder.as_ref().map(|folder| folder.join(file_name(context)));
        let device = format!("{} {} {caps:?}", context.name(), context.driver());
        let mut kept = Kept::load(file.as_deref(), &device);
        let mut tuning = Tuning::default();
        let mut open: Vec<(Open, u64)> = Vec::new();
        for (open_task, cost) in distinct(tasks, &caps) {
            match kept.known(&open_task, self.how) {
                Some(Some(tile)) => drop(tuning.choices.0.insert(open_task.key, tile)),
                Some(None) => {}
                None => open.push((open_task, cost)),
            }
        }
        if !open.is_empty() {
            open.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            let purse = Purse::new(began, self.budget);
            self.time(open, purse, context, &mut kept, &mut tuning);
            kept.save(file.as_deref());
        }
        tuning.seconds = began.elapsed().as_secs_f64();
        tuning
    }

    fn time(
        &self,
        open: Vec<(Open, u64)>,
        mut purse: Purse,
        context: &Arc<Context>,
        kept: &mut Kept,
        tuning: &mut Tuning,
    ) {
        let Ok(mut stopwatch) = Stopwatch::new(Arc::clone(context)) else { return };
        for (open, _) in open {
            let found = self.fastest(&open, &mut stopwatch, &mut purse);
            // What a device did that broke meanwhile tells nothing, and what is left would only fail as well.
            if context.check().is_err() {
                break;
            }
            // What fails to be timed, as for want of memory, is left to its shape, and to another start.
            let Ok(tile) = found else { continue };
            kept.insert(&open.key, tile, self.how);
            if let Some(tile) = tile {
                tuning.choices.0.insert(open.key, tile);
            }
        }
        tuning.timed = purse.timed;
    }

    /// The fastest tile of an operation that there is time to find; none where no other beats the one it
    /// takes by itself.
    fn fastest(
        &self,
        open: &Open,
        stopwatch: &mut Stopwatch,
        purse: &mut Purse,
    ) -> Result<Option<Tile>> {
        if !purse.affords_another() {
            return Ok(None);
        }
        let (inputs, outputs) = open.task.tensors();
        let bound = Bound { inputs: &inputs, outputs: &outputs };
        let caps = stopwatch.context().caps();
        let rig = stopwatch.rig(&inputs, &outputs)?;
        stopwatch.fill(&rig, &inputs)?;
        let lower = |&tile: &Tile| dense::lower(&open.task.op, bound, &caps, Some(tile));
        let ways: Vec<Lowered> = open.tiles.iter().map(lower).collect();
        let mut best: Option<(f64, Option<Tile>)> = None;
        let trials = purse.spend(|| stopwatch.prepare_all(&rig, &ways));
        for (i, trial) in trials.into_iter().enumerate() {
            let Some(trial) = trial else { continue };
            if !purse.affords_another() {
                break;
            }
            let bar = best.map_or(f64::INFINITY, |(seconds, _)| seconds);
            let seconds = purse.spend(|| self.seconds(stopwatch, &trial, bar))?;
            purse.timed += 1;
            let needed = if i == 0 { bar } else { CLEARLY * bar };
            if seconds < needed {
                best = Some((seconds, (i > 0).then_some(open.tiles[i])));
            }
        }
        Ok(best.and_then(|(_, tile)| tile))
    }

    /// Seconds of one run; a tile beyond hope is given up at its first try.
    fn seconds(&self, stopwatch: &Stopwatch, trial: &Trial, bar: f64) -> Result<f64> {
        stopwatch.run(trial, 1)?;
        let once = stopwatch.run(trial, 1)?;
        if self.how == Tune::Full {
            let effort = Effort { passes: 9, seconds: 1.0 };
            return stopwatch.time(trial, effort).map(|lap| lap.low_s);
        }
        if once > HOPELESS * bar {
            return Ok(once);
        }
        if once > 5e-3 {
            return Ok(once.min(stopwatch.run(trial, 1)?));
        }
        let effort = Effort { passes: 3, seconds: 0.05 };
        stopwatch.time(trial, effort).map(|lap| lap.low_s)
    }
}

/// The time there is, and what was got for it.
#[derive(Debug)]
struct Purse {
    began: Instant,
    budget: Duration,
    /// The longest that compiling an operation's tiles, or timing one, took.
    longest: Duration,
    timed: usize,
}

impl Purse {
    fn new(began: Instant, budget: Duration) -> Self {
        Self { began, budget, longest: Duration::ZERO, timed: 0 }
    }

    /// Whether there is time for one thing more, if it takes no longer than the longest did.
    fn affords_another(&self) -> bool {
        self.began.elapsed() + self.longest < self.budget
    }

    fn spend<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        self.longest = self.longest.max(start.elapsed());
        result
    }
}

/// A task that leaves a choice.
#[derive(Debug)]
struct Open {
    key: String,
    task: Task,
    tiles: Vec<Tile>,
}

fn task(plan: &Plan, node: &Node, times: usize) -> Task {
    let tensors = |ids: &[crate::graph::TensorId]| {
        ids.iter().map(|&id| plan.tensor(id).clone()).collect::<Vec<Tensor>>()
    };
    Task { op: node.op, inputs: tensors(&node.inputs), outputs: tensors(&node.outputs), times }
}

/// Each operation that leaves a choice, once, with the operations and bytes of all its runs.
fn distinct(tasks: impl Iterator<Item = Task>, caps: &DeviceCaps) -> Vec<(Open, u64)> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut found: Vec<(Open, u64)> = Vec::new();
    for task in tasks {
        let (inputs, outputs) = task.tensors();
        let bound = Bound { inputs: &inputs, outputs: &outputs };
        let Cost { flops, bytes } = Cost::of(&task.op, &inputs, &outputs);
        let cost = (flops + bytes) * task.times as u64;
        let key = key(&task.op, bound);
        let tiles = dense::candidates(&task.op, bound, caps);
        match places.get(&key) {
            Some(&place) => found[place].1 += cost,
            None if tiles.len() > 1 => {
                places.insert(key.clone(), found.len());
                found.push((Open { key, task, tiles }, cost));
            }
            None => {}
        }
    }
    found
}

/// What operations share that run equally fast: attributes, shapes and types.
fn key(op: &Op, bound: Bound) -> String {
    let tensor = |x: &&Tensor| format!("{:?}{:?}", x.dtype, x.shape);
    let tensors: Vec<String> = bound.inputs.iter().chain(bound.outputs).map(tensor).collect();
    format!("{op:?} {}", tensors.join(" "))
}

fn file_name(context: &Context) -> String {
    let info = &context.info;
    let version = env!("CARGO_PKG_VERSION");
    format!("tiles-{}-{:x}-{:x}-{version}.json", info.backend, info.vendor, info.device)
}

/// What is on disk.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// Name, driver and capabilities: of another device nothing is taken.
    device: String,
    tiles: BTreeMap<String, Entry>,
}

/// What was found for an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    /// The tile's name; none where the operation keeps the one it takes by itself.
    tile: Option<String>,
    /// How it was found.
    by: Tune,
}

impl Kept {
    /// What is in the file; nothing if it cannot be read, is damaged, or is another device's.
    fn load(file: Option<&Path>, device: &str) -> Self {
        let read = file.and_then(|file| std::fs::read(file).ok());
        let kept = read.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        kept.filter(|kept| kept.device == device)
            .unwrap_or_else(|| Self { device: device.into(), tiles: BTreeMap::new() })
    }

    /// What is known about an operation: a tile, or that it keeps its own. A name that is no tile's, or of a
    /// tile that no longer suits the operation, is not known; nor, to a full search, what a fast one found.
    fn known(&self, open: &Open, how: Tune) -> Option<Option<Tile>> {
        let entry = self.tiles.get(&open.key)?;
        if how == Tune::Full && entry.by != Tune::Full {
            return None;
        }
        match &entry.tile {
            None => Some(None),
            Some(name) => name.parse().ok().filter(|tile| open.tiles.contains(tile)).map(Some),
        }
    }

    fn insert(&mut self, key: &str, tile: Option<Tile>, by: Tune) {
        let tile = tile.map(|tile| tile.to_string());
        self.tiles.insert(key.into(), Entry { tile, by });
    }

    /// That it cannot be written is no reason to fail.
    fn save(&self, file: Option<&Path>) {
        let Some(file) = file else { return };
        if let Ok(bytes) = serde_json::to_vec_pretty(self) {
            let _unwritten = write_atomically(file, &bytes);
        }
    }
}

#[cfg(test)]
mod tests;
