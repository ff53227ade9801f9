//! Saving in the background: the `checkpoint` thread, which has at most one checkpoint to write.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::best::Best;
use super::save::save;
use super::{checkpoints_dir, finite, folder_of};
use crate::error::{Error, Result};
use crate::executor::Snapshot;
use crate::graph::plan::Program;
use crate::train::book::Progress;
use crate::train::event::CheckpointReport;

/// Jobs that wait or are under way: a checkpoint, and the note that it is the best, which the validation after it
/// brings. A checkpoint holds a copy of all persistent arenas, so one is the bound on memory: a run that saves faster
/// than the disk writes is held up.
const IN_FLIGHT_MAX: usize = 2;

/// What there is to write.
enum Job {
    Save(Box<Save>),
    /// The checkpoint of this step, written before, is the best.
    Mark(Best),
}

/// A checkpoint to be written.
pub struct Save {
    /// The arenas.
    pub snapshot: Snapshot,
    /// How far the run had come.
    pub progress: Progress,
    /// Whether it is the best.
    pub best: Option<Best>,
    /// Files that must be on the disk before it: the lines of the steps up to here.
    pub before: Vec<File>,
}

/// Hands checkpoints to the thread that writes them. Dropping it waits for what is being written.
pub struct CheckpointWriter {
    /// Dropped first, which ends the thread.
    jobs: Option<Sender<Job>>,
    results: Receiver<Result<Option<CheckpointReport>>>,
    in_flight: usize,
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
        let write = move |job: Job| match job {
            Job::Save(job) => {
                let Save { snapshot, progress, best, before } = *job;
                let span = tracing::info_span!("checkpoint", step = progress.step);
                let _entered = span.enter();
                finite::check(&program, &snapshot, progress.step)?;
                sync(&before, &run_dir)?;
                let report = save(&run_dir, &program, seed, &snapshot, progress, keep)?;
                best.map_or(Ok(()), |best| best.write(&checkpoints_dir(&run_dir)))?;
                Ok(Some(report))
            }
            Job::Mark(best) => {
                let folder = checkpoints_dir(&run_dir);
                // The save before it may have failed, and what is not there is not the best.
                if folder_of(&folder, best.step).exists() {
                    best.write(&folder)?;
                }
                Ok(None)
            }
        };
        let work = move || {
            for job in todo {
                // Room for it is certain, unless the writer is gone: then nobody wants to know.
                if done.send(write(job)).is_err() {
                    break;
                }
            }
        };
        let thread =
            std::thread::Builder::new().name("checkpoint".into()).spawn(work).map_err(|cause| {
                Error::checkpoint("checkpoint thread", format!("cannot start: {cause}"))
            })?;
        let jobs = Some(jobs);
        Ok(Self { jobs, results, in_flight: 0, finished: Vec::new(), thread: Some(thread) })
    }

    /// Hands a checkpoint over; waits only if the one before is still being written.
    ///
    /// # Errors
    /// When the one before could not be written, or the thread has ended.
    pub fn save(&mut self, save: Save) -> Result<()> {
        self.receive(0)?;
        self.hand_over(Job::Save(Box::new(save)))
    }

    /// Notes that the checkpoint handed over last is the best; does not wait for it.
    ///
    /// # Errors
    /// As [`CheckpointWriter::save`].
    pub fn mark(&mut self, best: Best) -> Result<()> {
        self.receive(IN_FLIGHT_MAX - 1)?;
        self.hand_over(Job::Mark(best))
    }

    fn hand_over(&mut self, job: Job) -> Result<()> {
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(job).map_err(|_| ended())?;
        self.in_flight += 1;
        Ok(())
    }

    /// The checkpoints that have reached the disk since the last call; with `wait` also the one being written.
    ///
    /// # Errors
    /// When one could not be written.
    pub fn saved(&mut self, wait: bool) -> Result<Vec<CheckpointReport>> {
        self.receive(if wait { 0 } else { IN_FLIGHT_MAX })?;
        Ok(std::mem::take(&mut self.finished))
    }

    /// Takes what has come back, and waits until at most `in_flight` jobs are out.
    fn receive(&mut self, in_flight: usize) -> Result<()> {
        // A thread that ended without a result shows up as soon as somebody waits for it.
        while self.in_flight > in_flight || (self.in_flight > 0 && !self.results.is_empty()) {
            self.in_flight -= 1;
            let report = self.results.recv().map_err(|_| ended())??;
            self.finished.extend(report);
        }
        Ok(())
    }
}

/// Waits until files that grow are on the disk as far as they have come.
fn sync(files: &[File], run_dir: &Path) -> Result<()> {
    let synced = files.iter().try_for_each(File::sync_data);
    synced.map_err(|cause| {
        Error::checkpoint(run_dir.display(), format!("its lines cannot be synced: {cause}"))
    })
}

fn ended() -> Error {
    Error::checkpoint("checkpoint thread", "ended unexpectedly")
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The result channel has room for the last results, so the thread always comes to its end.
            let _ = thread.join();
        }
    }
}
