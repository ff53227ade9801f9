//! Which checkpoints a run takes: those that are due, and those of epochs that turn out the best.
//!
//! A checkpoint is taken right after a step, and the validation of that step comes later. So where none is due at the end
//! of an epoch, one is taken all the same and held in memory until the validation has told whether it is worth writing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::book::Progress;
use super::checkpoint::{Best, Cadence, CheckpointWriter, Metric, Save, checkpoints_dir};
use super::event::{CheckpointReport, EpochReport};
use crate::error::Result;
use crate::executor::Snapshot;
use crate::graph::plan::Program;
use crate::pipeline::Work;
use crate::report::folder::{RunFolder, RunLock};

/// Where and how often a run saves, and what stays.
pub(super) struct Saving {
    pub dir: PathBuf,
    /// The folder, where somebody holds it already.
    pub lock: Option<RunLock>,
    /// Whether the checkpoint that the run goes on from lies in that folder.
    pub resumes_here: bool,
    pub every: Cadence,
    /// Newest checkpoints that stay.
    pub keep: usize,
    /// By what the best is told, which stays as well.
    pub best: Metric,
}

/// Takes the checkpoints of a run.
pub(super) struct Keeper {
    writer: CheckpointWriter,
    every: Cadence,
    total_steps: u64,
    /// Since when no checkpoint was due, where that is told by time.
    since: Instant,
    metric: Metric,
    best: Option<Best>,
    /// The best, whose checkpoint is yet to be taken.
    unsaved_best: Option<Best>,
    /// Steps whose snapshot is on its way in case that they are the best; as many at most as passes in flight.
    perhaps: Vec<u64>,
    /// The snapshot of an epoch that is being validated.
    held: Option<(Snapshot, Progress)>,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
}

impl Keeper {
    /// Starts the thread that writes; the run goes on after `first_step`.
    pub fn start(
        saving: &Saving,
        program: Arc<Program>,
        seed: u64,
        total_steps: u64,
        first_step: u64,
    ) -> Result<Self> {
        let writer = CheckpointWriter::start(&saving.dir, program, seed, saving.keep)?;
        let tells = saving.best != Metric::Off && saving.resumes_here;
        let best = match tells {
            true => Best::try_read(&checkpoints_dir(&saving.dir))?,
            false => None,
        };
        Ok(Self {
            writer,
            every: saving.every,
            total_steps,
            since: Instant::now(),
            metric: saving.best,
            // What lies after the step that a run goes on from comes again.
            best: best.filter(|best| best.step <= first_step),
            unsaved_best: None,
            perhaps: Vec::new(),
            held: None,
            saved: saving.resumes_here.then_some(first_step),
        })
    }

    /// Whether the newest checkpoint is of this step.
    fn has_saved(&self, step: u64) -> bool {
        self.saved == Some(step)
    }

    /// Whether a snapshot is to be taken right after this step, which somebody `asked` for or not. The last step's is
    /// taken at the end of the run.
    pub fn is_due(&mut self, work: &Work, asked: bool) -> bool {
        let step = work.step + 1;
        let is_last = step == self.total_steps;
        let by_itself = match self.every {
            Cadence::Epoch => work.last,
            Cadence::Steps(steps) => step.is_multiple_of(steps),
            Cadence::Time(time) => self.since.elapsed() >= time,
        };
        if asked || (by_itself && !is_last) {
            self.since = Instant::now();
            return true;
        }
        let perhaps = self.metric != Metric::Off && work.last && !is_last;
        if perhaps {
            self.perhaps.push(step);
        }
        perhaps
    }

    /// A snapshot has come: hands it to the thread, waiting only if the one before is still being written, or holds it.
    pub fn take(
        &mut self,
        snapshot: Snapshot,
        progress: Progress,
        lines: &RunFolder,
    ) -> Result<()> {
        if let Some(at) = self.perhaps.iter().position(|&step| step == progress.step) {
            self.perhaps.swap_remove(at);
            self.held = Some((snapshot, progress));
            return Ok(());
        }
        self.save(snapshot, progress, lines)
    }

    /// Hands a snapshot to the thread.
    pub fn save(
        &mut self,
        snapshot: Snapshot,
        progress: Progress,
        lines: &RunFolder,
    ) -> Result<()> {
        let best = self.unsaved_best.take_if(|best| best.step == progress.step);
        self.saved = Some(progress.step);
        self.writer.save(Save { snapshot, progress, best, before: lines.handles()? })
    }

    /// An epoch was validated: if it is the best so far, its checkpoint is written, if it was not, and stays.
    pub fn judge(&mut self, epoch: &EpochReport, lines: &RunFolder) -> Result<()> {
        let held = self.held.take().filter(|(_, progress)| progress.step == epoch.step);
        let metric = self.metric;
        let Some(value) = metric.of(epoch) else { return Ok(()) };
        // A run that went on from a checkpoint elsewhere, and validates that first, has none of it here.
        let is_kept =
            held.is_some() || self.has_saved(epoch.step) || epoch.step == self.total_steps;
        if !is_kept {
            return Ok(());
        }
        if self.best.is_some_and(|best| !best.is_beaten(metric, value)) {
            return Ok(());
        }
        let best = Best { step: epoch.step, metric, value };
        self.best = Some(best);
        match held {
            Some((snapshot, progress)) => {
                self.unsaved_best = Some(best);
                self.save(snapshot, progress, lines)
            }
            None if self.has_saved(epoch.step) => self.writer.mark(best),
            // The end of the run saves it.
            None => {
                self.unsaved_best = Some(best);
                Ok(())
            }
        }
    }

    /// The checkpoints that have reached the disk since the last call; with `wait` also what is being written.
    pub fn saved(&mut self, wait: bool) -> Result<Vec<CheckpointReport>> {
        self.writer.saved(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, SampleSpec, TargetSpec};
    use crate::nn::layers::Layer;
    use crate::nn::sequential::Sequential;
    use crate::source::Synthetic;
    use crate::{RunConfig, Trainer};

    fn program() -> Program {
        let spec = SampleSpec {
            input_shape: vec![3],
            input_dtype: DType::F32,
            target: TargetSpec::Class { classes: 2 },
        };
        let source = Arc::new(Synthetic::new(8, spec.clone(), 0).expect("a source"));
        let model = Sequential::new(vec![Layer::classes()], &spec).expect("fits");
        let config = RunConfig { batch_size: 4, device: "cpu".into(), ..Default::default() };
        Trainer::builder(model, source).config(config).program().expect("compiles")
    }

    #[test]
    fn a_checkpoint_that_lies_elsewhere_is_not_the_best_here() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let program = Arc::new(program());
        let lines = RunFolder::open(dir.path(), 4).expect("opens");
        // What another run has left here is not to be beaten either.
        let checkpoints = checkpoints_dir(dir.path());
        std::fs::create_dir_all(checkpoints.join("step-3")).expect("a folder");
        let left = "{\"step\": 3, \"metric\": \"val_loss\", \"value\": 0.5}";
        std::fs::write(checkpoints.join("best.json"), left).expect("writes");
        assert!(Best::read(&checkpoints).is_some(), "it can be read");
        let saving = Saving {
            dir: dir.path().into(),
            lock: None,
            resumes_here: false,
            every: Cadence::Steps(8),
            keep: 2,
            best: Metric::ValLoss,
        };
        let mut keeper = Keeper::start(&saving, program.clone(), 0, 100, 4).expect("starts");
        let validated =
            |step, loss| EpochReport { step, val_loss: Some(loss), ..Default::default() };
        keeper.judge(&validated(4, 1.0), &lines).expect("nothing to save");
        let arenas = program.persistent_arenas();
        let arenas = arenas.map(|arena| (arena, vec![0.0; program.arenas[&arena]])).collect();
        let progress = Progress { step: 8, ..Default::default() };
        keeper.save(Snapshot { arenas }, progress, &lines).expect("accepted");
        keeper.judge(&validated(8, 2.0), &lines).expect("accepted");
        keeper.saved(true).expect("saved");
        let best = Best::read(&checkpoints).expect("one is noted, and there");
        assert_eq!((best.step, best.value), (8, 2.0));
    }
}
