//! The folder of a run: `metrics.jsonl` with a line for every step, and `verdict.json` at the end.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::verdict::Verdict;
use crate::durable::replace_file;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::train::event::{StepReport, Summary};

/// Bytes of metrics that may wait in memory: some hundred steps.
const METRICS_BUFFER_BYTES: usize = 64 << 10;

/// The open folder of a run under way.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: BufWriter<File>,
}

/// What the truncation of metrics needs of a line.
#[derive(Deserialize)]
struct StepLine {
    step: u64,
}

impl RunFolder {
    /// Opens the folder `path`, which is made if needed. Metrics of steps after `first_step` are cut off:
    /// they belong to work that was lost, or to another run.
    ///
    /// # Errors
    /// When the folder cannot be made, or metrics there cannot be read or replaced.
    pub fn open(path: &Path, first_step: u64) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(|e| unwritable(path, e))?;
        let file = path.join("metrics.jsonl");
        if file.exists() {
            keep_steps(&file, first_step)?;
        }
        let metrics = OpenOptions::new().create(true).append(true).open(&file);
        let metrics = metrics.map_err(|e| unwritable(&file, e))?;
        let metrics = BufWriter::with_capacity(METRICS_BUFFER_BYTES, metrics);
        Ok(Self { path: path.to_path_buf(), metrics })
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
        serde_json::to_writer(&mut self.metrics, report)
            .map_err(std::io::Error::from)
            .and_then(|()| self.metrics.write_all(b"\n"))
            .map_err(|e| unwritable(&self.path.join("metrics.jsonl"), e))
    }

    /// Hands all metrics so far to the operating system; a checkpoint does this first, so that its steps
    /// are never missing.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn flush(&mut self) -> Result<()> {
        self.metrics.flush().map_err(|e| unwritable(&self.path.join("metrics.jsonl"), e))
    }

    /// Writes the verdict of a finished run.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn finish(&mut self, summary: &Summary) -> Result<()> {
        self.flush()?;
        write_verdict(&self.path, &summary.verdict)
    }
}

/// Writes a verdict into the folder of a run.
///
/// # Errors
/// When the disk is full or fails.
pub fn write_verdict(run_dir: &Path, verdict: &Verdict) -> Result<()> {
    let path = run_dir.join("verdict.json");
    let mut json = serde_json::to_vec_pretty(verdict)
        .map_err(|e| unwritable(&path, std::io::Error::from(e)))?;
    json.push(b'\n');
    replace_file(&path, &json)
}

/// Cuts metrics off after the line of step `last`, or before one that was torn by a crash.
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
}
