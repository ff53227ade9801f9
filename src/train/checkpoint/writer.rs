//! Saving in the background: the `checkpoint` thread, which has at most one checkpoint to write.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::save::save;
use crate::error::{Error, Result};
use crate::executor::Snapshot;
use crate::graph::plan::Program;
use crate::train::book::Progress;
use crate::train::event::CheckpointReport;

/// Checkpoints being written at a time. Each holds a copy of all persistent arenas, so one is the bound on
/// memory; a run that saves faster than the disk writes is held up.
const IN_FLIGHT_MAX: usize = 1;

struct Job {
    snapshot: Snapshot,
    progress: Progress,
}

/// Hands checkpoints to the thread that writes them. Dropping it waits for the one being written.
pub struct CheckpointWriter {
    /// Dropped first, which ends the thread.
    jobs: Option<Sender<Job>>,
    results: Receiver<Result<CheckpointReport>>,
    in_flight: bool,
    finished: Vec<CheckpointReport>,
    thread: Option<JoinHandle<()>>,
}

impl CheckpointWriter {
    /// Starts the thread, for checkpoints of `program` in `run_dir` of which the newest `keep` stay.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(run_dir: &Path, program: Arc<Program>, seed: u64, keep: usize) -> Result<Self> {
        let (jobs, todo) = bounded::<Job>(IN_FLIGHT_MAX);
        let (done, results) = bounded(IN_FLIGHT_MAX);
        let run_dir = run_dir.to_path_buf();
        let work = move || {
            for Job { snapshot, progress } in todo {
                let span = tracing::info_span!("checkpoint", step = progress.step);
                let write = || save(&run_dir, &program, seed, &snapshot, progress, keep);
                let result = span.in_scope(write);
                // Room for it is certain, unless the writer is gone: then nobody wants to know.
                if done.send(result).is_err() {
                    break;
                }
            }
        };
        let thread =
            std::thread::Builder::new().name("checkpoint".into()).spawn(work).map_err(|cause| {
                Error::checkpoint("checkpoint thread", format!("cannot start: {cause}"))
            })?;
        let jobs = Some(jobs);
        Ok(Self { jobs, results, in_flight: false, finished: Vec::new(), thread: Some(thread) })
    }

    /// Hands a checkpoint over; waits only if the one before is still being written.
    ///
    /// # Errors
    /// When the one before could not be written, or the thread has ended.
    pub fn save(&mut self, snapshot: Snapshot, progress: Progress) -> Result<()> {
        self.receive(true)?;
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(Job { snapshot, progress }).map_err(|_| ended())?;
        self.in_flight = true;
        Ok(())
    }

    /// The checkpoints that have reached the disk since the last call; with `wait` also the one being written.
    ///
    /// # Errors
    /// When one could not be written.
    pub fn saved(&mut self, wait: bool) -> Result<Vec<CheckpointReport>> {
        self.receive(wait)?;
        Ok(std::mem::take(&mut self.finished))
    }

    fn receive(&mut self, wait: bool) -> Result<()> {
        if !self.in_flight || (!wait && self.results.is_empty()) {
            // A thread that ended without a result shows up as soon as somebody waits for it.
            return Ok(());
        }
        self.in_flight = false;
        let report = self.results.recv().map_err(|_| ended())??;
        self.finished.push(report);
        Ok(())
    }
}

fn ended() -> Error {
    Error::checkpoint("checkpoint thread", "ended unexpectedly")
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The result channel has room for the last result, so the thread always comes to its end.
            let _ = thread.join();
        }
    }
}
