//! The folder of a run: lines of JSON while it goes on, `metrics.jsonl` for steps, `epochs.jsonl` for epochs and
//! `timeline.jsonl` for pulses; and `summary.json` and `verdict.json` at the end.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pulse::{Pulse, Thinning};
use crate::durable::{create_folders, remove_temporaries, replace_file};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::lock::Lock;
use crate::train::event::{EpochReport, StepReport, Summary};

/// Bytes of lines that may wait in memory: some hundred steps.
const LINES_BUFFER_BYTES: usize = 64 << 10;

/// A line for every step: [`StepReport`].
pub const METRICS: &str = "metrics.jsonl";
/// A line for every epoch: [`EpochReport`]. Of two for one epoch the later one counts.
pub const EPOCHS: &str = "epochs.jsonl";
/// What the stages did over time: [`Pulse`], longer ones as the run grows longer.
pub const TIMELINE: &str = "timeline.jsonl";
/// The end of the run: [`Summary`].
pub const SUMMARY: &str = "summary.json";
/// The verdict of the run, which is in its summary as well.
pub const VERDICT: &str = "verdict.json";

/// Held while a run goes on: two that wrote into one folder would remove each other's checkpoints.
const LOCK: &str = ".lock";

/// Has the folder of a run to itself, for this process, until all copies are dropped or the process ends, however it does.
/// Whoever means to go on with a run holds this from before its checkpoint is read, so that no other process goes on with
/// it meanwhile; one trainer after the other may write there under it.
#[derive(Clone, Debug)]
pub struct RunLock {
    path: PathBuf,
    _lock: Arc<Lock>,
}

impl RunLock {
    /// Holds the folder `path`, which is made if needed.
    ///
    /// # Errors
    /// When the folder cannot be made, or another run goes on there.
    pub fn hold(path: &Path) -> Result<Self> {
        create_folders(path)?;
        Ok(Self { path: path.to_path_buf(), _lock: Arc::new(lock(path)?) })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The open folder of a run under way.
#[derive(Debug)]
pub struct RunFolder {
    _lock: RunLock,
    path: PathBuf,
    metrics: Lines,
    epochs: Lines,
    timeline: Lines,
    thinning: Thinning,
}

/// A file of lines of JSON that grows.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl Lines {
    /// Opens a file, from which lines of steps after `first_step` are cut off.
    fn open(path: PathBuf, first_step: u64) -> Result<Self> {
        if path.exists() {
            keep_steps(&path, first_step)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| unwritable(&path, e))?;
        Ok(Self { path, writer: BufWriter::with_capacity(LINES_BUFFER_BYTES, file) })
    }

    fn add(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.writer, line)
            .map_err(std::io::Error::from)
            .and_then(|()| self.writer.write_all(b"\n"))
            .map_err(|e| unwritable(&self.path, e))
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(|e| unwritable(&self.path, e))
    }
}

/// What cutting lines off needs of one.
#[derive(Deserialize)]
struct StepLine {
    step: u64,
}

impl RunFolder {
    /// Opens the folder `path`, which is made if needed. Lines of steps after `first_step` are cut off:
    /// they belong to work that was lost, or to another run.
    ///
    /// # Errors
    /// When the folder cannot be made, another run goes on there, or lines there cannot be read or replaced.
    pub fn open(path: &Path, first_step: u64) -> Result<Self> {
        Self::open_locked(RunLock::hold(path)?, first_step)
    }

    /// As [`RunFolder::open`], of a folder that is held already.
    ///
    /// # Errors
    /// When lines there cannot be read or replaced.
    pub fn open_locked(lock: RunLock, first_step: u64) -> Result<Self> {
        let path = lock.path.clone();
        remove_temporaries(&path)?;
        let lines = |name| Lines::open(path.join(name), first_step);
        let (metrics, epochs, timeline) = (lines(METRICS)?, lines(EPOCHS)?, lines(TIMELINE)?);
        Ok(Self { _lock: lock, path, metrics, epochs, timeline, thinning: Thinning::default() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a step to the metrics. It may wait in memory until [`RunFolder::flush`].
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn record(&mut self, report: &StepReport) -> Result<()> {
        self.metrics.add(report)
    }

    /// Adds an epoch, and hands all lines so far to the operating system.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn record_epoch(&mut self, report: &EpochReport) -> Result<()> {
        self.epochs.add(report)?;
        self.flush()
    }

    /// Adds a pulse to the timeline, which may wait for the next ones.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn record_pulse(&mut self, pulse: Pulse) -> Result<()> {
        self.thinning.take(pulse).map_or(Ok(()), |pulse| self.timeline.add(&pulse))
    }

    /// Hands all lines so far to the operating system; a checkpoint does this first, so that its steps
    /// are never missing.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn flush(&mut self) -> Result<()> {
        [&mut self.metrics, &mut self.epochs, &mut self.timeline]
            .into_iter()
            .try_for_each(Lines::flush)
    }

    /// The files of steps and epochs, for whoever must know that what was flushed is on the disk.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub fn handles(&self) -> Result<Vec<File>> {
        let handle = |lines: &Lines| {
            lines.writer.get_ref().try_clone().map_err(|e| unwritable(&lines.path, e))
        };
        [&self.metrics, &self.epochs].into_iter().map(handle).collect()
    }

    /// Writes summary and verdict of a finished run.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn finish(&mut self, summary: &Summary) -> Result<()> {
        if let Some(rest) = self.thinning.rest() {
            self.timeline.add(&rest)?;
        }
        self.flush()?;
        write_json(&self.path.join(SUMMARY), summary)?;
        write_json(&self.path.join(VERDICT), &summary.verdict)
    }
}

/// Writes the summary and the verdict of a run that is over anew, once something was added to them.
///
/// # Errors
/// When the disk is full or fails.
pub fn rewrite_summary(run_dir: &Path, summary: &Summary) -> Result<()> {
    write_json(&run_dir.join(SUMMARY), summary)?;
    write_json(&run_dir.join(VERDICT), &summary.verdict)
}

/// Writes a file of JSON for people and tools, whole or not at all.
///
/// # Errors
/// When the disk is full or fails.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut json =
        serde_json::to_vec_pretty(value).map_err(|e| unwritable(path, std::io::Error::from(e)))?;
    json.push(b'\n');
    replace_file(path, &json)
}

/// Cuts lines off after those of step `last`, or before one that was torn by a crash.
fn keep_steps(path: &Path, last: u64) -> Result<()> {
    let failed = |e| unwritable(path, e);
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    let mut lines = BufReader::new(&file);
    let (mut line, mut kept_bytes) = (Vec::new(), 0);
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line).map_err(failed)?;
        let whole = line.strip_suffix(b"\n").and_then(|json| serde_json::from_slice(json).ok());
        match whole {
            Some(StepLine { step }) if step <= last => kept_bytes += line.len() as u64,
            _ => return file.set_len(kept_bytes).map_err(failed),
        }
    }
}

/// Has the folder to itself until the lock is dropped or the process ends, however it does.
fn lock(dir: &Path) -> Result<Lock> {
    let path = dir.join(LOCK);
    Lock::hold(&path).map_err(|e| unwritable(&path, e))?.ok_or_else(|| {
        Error::config(dir.display(), "is the folder of a run that is still going on")
            .hint("stopping that one first, or another --out")
    })
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::new(Stage::Checkpoint, ErrorKind::Checkpoint, path.display(), "cannot be written")
        .hint("another --out, or more room on the disk")
        .caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps_of(dir: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(dir.join("metrics.jsonl")).expect("metrics are there");
        let step = |line| serde_json::from_str::<StepLine>(line).expect("a whole line").step;
        text.lines().map(step).collect()
    }

    fn record(folder: &mut RunFolder, steps: std::ops::RangeInclusive<u64>) {
        for step in steps {
            let report = StepReport { step, loss: 1.0 / step as f64, ..Default::default() };
            folder.record(&report).expect("writes");
        }
        folder.flush().expect("flushes");
    }

    #[test]
    fn resuming_cuts_off_lost_steps_and_goes_on() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut folder = RunFolder::open(dir.path(), 0).expect("opens");
        record(&mut folder, 1..=7);
        drop(folder);
        // A crash tears the last line.
        let metrics = dir.path().join("metrics.jsonl");
        let mut file = OpenOptions::new().append(true).open(&metrics).expect("opens");
        file.write_all(b"{\"step\":8,\"lo").expect("writes");
        let mut folder = RunFolder::open(dir.path(), 5).expect("opens again");
        assert_eq!(steps_of(dir.path()), [1, 2, 3, 4, 5]);
        record(&mut folder, 6..=8);
        assert_eq!(steps_of(dir.path()), [1, 2, 3, 4, 5, 6, 7, 8]);
        drop(folder);
        RunFolder::open(dir.path(), 0).expect("opens a third time");
        assert!(steps_of(dir.path()).is_empty());
    }

    #[test]
    fn a_run_that_goes_on_has_its_folder_to_itself() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut folder = RunFolder::open(dir.path(), 0).expect("opens");
        record(&mut folder, 1..=3);
        let error = RunFolder::open(dir.path(), 1).expect_err("it goes on").to_string();
        assert!(error.contains("is the folder of a run that is still going on"), "{error}");
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
        assert_eq!(steps_of(dir.path()), [1, 2, 3], "nothing was cut off");
        drop(folder);
        RunFolder::open(dir.path(), 1).expect("its end is known");
    }

    #[test]
    fn one_folder_after_the_other_is_opened_under_one_lock() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let lock = RunLock::hold(dir.path()).expect("nobody has it");
        for first_step in [0, 2] {
            let mut folder = RunFolder::open_locked(lock.clone(), first_step).expect("is held");
            record(&mut folder, first_step + 1..=3);
            assert_eq!(steps_of(dir.path()), [1, 2, 3]);
            RunFolder::open(dir.path(), 0).expect_err("it is held");
        }
        RunLock::hold(dir.path()).expect_err("it is held between two as well");
        drop(lock);
        RunLock::hold(dir.path()).expect("nobody has it any more");
    }

    #[test]
    fn epochs_and_timeline_are_cut_off_with_the_metrics() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut folder = RunFolder::open(dir.path(), 0).expect("opens");
        for step in [4, 8] {
            let epoch = EpochReport { epoch: step / 4 - 1, step, ..Default::default() };
            folder.record_epoch(&epoch).expect("writes");
            let pulse = Pulse { step, over_s: 1.0, ..Default::default() };
            folder.record_pulse(pulse).expect("writes");
        }
        folder.flush().expect("flushes");
        drop(folder);
        drop(RunFolder::open(dir.path(), 5).expect("opens again"));
        for name in [EPOCHS, TIMELINE] {
            let text = std::fs::read_to_string(dir.path().join(name)).expect("is there");
            assert_eq!(text.lines().count(), 1, "{name}: {text}");
            assert!(text.contains("\"step\":4"), "{name}: {text}");
        }
    }
}
