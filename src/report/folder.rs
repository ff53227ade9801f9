//! The folder of a run: `metrics.jsonl` with a line for every step, and `verdict.json` at the end.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

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
        let path = self.path.join("verdict.json");
        let mut json = serde_json::to_vec_pretty(&summary.verdict)
            .map_err(|e| unwritable(&path, std::io::Error::from(e)))?;
        json.push(b'\n');
        write_atomically(&path, |file| file.write_all(&json))
    }
}

/// Writes a file so that either the old or the new one is there, whatever happens: beside it, synced,
/// renamed.
///
/// # Errors
/// When the folder is not writable, or the disk is full or fails; then the old file is untouched and
/// nothing is left behind.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let replace = || {
        let mut beside = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
        let mut buffered = BufWriter::new(beside.as_file_mut());
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        set_usual_permissions(beside.as_file())?;
        beside.as_file().sync_all()?;
        beside.persist(path).map_err(|e| e.error)?;
        sync_folder(folder)
    };
    replace().map_err(|e| unwritable(path, e))
}

/// A temporary file is private to its user, but what a run leaves behind is for everybody who may read
/// the folder.
#[cfg(unix)]
fn set_usual_permissions(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_usual_permissions(_file: &File) -> std::io::Result<()> {
    Ok(())
}

/// Makes the rename itself last through a power cut; only Unix lets a folder be opened for that.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Rewrites metrics with the lines of steps 1 to `last` only. A line that was torn by a crash ends them.
fn keep_steps(path: &Path, last: u64) -> Result<()> {
    let unreadable = |e| unwritable(path, e);
    let lines = BufReader::new(File::open(path).map_err(unreadable)?).lines();
    let mut kept = Vec::new();
    for line in lines {
        let line = line.map_err(unreadable)?;
        match serde_json::from_str::<StepLine>(&line) {
            Ok(StepLine { step }) if step <= last => kept.push(line),
            _ => break,
        }
    }
    write_atomically(path, |file| kept.iter().try_for_each(|line| writeln!(file, "{line}")))
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
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("verdict.json");
        write_atomically(&path, |file| file.write_all(b"old")).expect("writes");
        let error = write_atomically(&path, |file| {
            file.write_all(b"ne")?;
            Err(std::io::Error::other("disk full"))
        })
        .expect_err("the write failed");
        assert_eq!(error.kind(), ErrorKind::Checkpoint);
        assert_eq!(std::fs::read(&path).expect("still there"), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1);
    }
}
