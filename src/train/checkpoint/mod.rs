//! Checkpoints: all that a run needs to go on bit for bit, in a folder that is whole or not there.
//!
//! `RUN/checkpoints/step-N/` holds `model.safetensors` (the weights, by PyTorch's names; their moving average
//! where one is kept), `state.safetensors` (moments and control of the optimizer, and the weights themselves
//! where the model's are averages) and `manifest.json`
//! ([`Manifest`]: progress, seed, a hash of each file). A save writes all three into a temporary folder
//! beside it, syncs the files and the folder, renames it, and syncs `checkpoints/`; so a process killed at
//! any moment leaves either the checkpoint before or the new one. `checkpoints/best.json` names the one that validation
//! liked best ([`Best`]), which stays whatever comes after it. What a run went back behind is kept as `step-N.abandoned`,
//! where nothing looks for checkpoints, until somebody removes it.

mod best;
mod cadence;
mod contents;
mod finite;
mod manifest;
mod save;
mod survey;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::executor::Snapshot;
use crate::graph::plan::Program;

use super::book::Progress;
use super::weights::Weights;
use crate::durable;

pub use best::{Best, Metric};
pub use cadence::Cadence;
pub use manifest::{FORMAT, FileEntry, Manifest, TensorEntry, Unread};
pub(crate) use save::settle;
pub use save::{KEEP_MIN, save};
pub use survey::{Difference, Differences, Listed, abandoned, diff, survey};
pub use writer::{CheckpointWriter, Save};

const MODEL_FILE: &str = "model.safetensors";
const STATE_FILE: &str = "state.safetensors";

/// A checkpoint in memory, every hash of it checked.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The folder it was read from.
    pub path: PathBuf,
    /// How far the run had come.
    pub progress: Progress,
    /// All else that is known of it.
    pub manifest: Manifest,
    /// The model's weights.
    pub weights: Weights,
    state: Weights,
}

impl Checkpoint {
    /// Reads the checkpoint in a folder.
    ///
    /// # Errors
    /// When a file is missing, truncated or changed (naming the file), or when the checkpoint was written in
    /// another format.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::read(folder.as_ref()).map_err(Unread::into_error)
    }

    fn read(folder: &Path) -> Result<Self, Unread> {
        let manifest = Manifest::read(folder)?;
        let weights = verified(folder, &manifest, MODEL_FILE)?;
        let state = verified(folder, &manifest, STATE_FILE)?;
        Ok(Self {
            path: folder.to_path_buf(),
            progress: manifest.progress,
            manifest,
            weights,
            state,
        })
    }

    /// The arenas as they were, for a program of the same model and optimizer.
    ///
    /// # Errors
    /// When model or optimizer differ, tensor by tensor; nothing is loaded in part.
    pub fn restore(&self, program: &Program) -> Result<Snapshot> {
        contents::restore(program, &self.weights, &self.state)
    }
}

/// A file of a checkpoint, held against size and hash before anything in it is looked at.
fn verified(folder: &Path, manifest: &Manifest, file: &str) -> Result<Weights, Unread> {
    let path = folder.join(file);
    let damaged = |message: String| {
        let error = Error::checkpoint(path.display(), message);
        Unread::Damaged(error.hint("an older checkpoint of the run"))
    };
    let expected = manifest
        .files
        .get(file)
        .ok_or_else(|| damaged("is not listed in the checkpoint's manifest".into()))?;
    let bytes = durable::try_read_file(&path, u64::MAX)?;
    if bytes.len() as u64 != expected.bytes {
        let message = format!("is damaged: has {} bytes, expected {}", bytes.len(), expected.bytes);
        return Err(damaged(message));
    }
    let found = manifest::sha256(&bytes);
    if found != expected.sha256 {
        let message = format!("is damaged: its hash is {found}, expected {}", expected.sha256);
        return Err(damaged(message));
    }
    Weights::parse(path.display(), &bytes).map_err(Unread::Damaged)
}

/// The newest whole checkpoint of a run.
#[derive(Clone, Debug)]
pub struct Latest {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Why each newer one could not be used; a caller should say so.
    pub damaged: Vec<Error>,
}

/// Finds the newest checkpoint of a run that can be trusted.
///
/// # Errors
/// When there is none, or when the newest may be whole, but was written in another format or cannot be read now.
pub fn latest(run_dir: impl AsRef<Path>) -> Result<Latest> {
    let run_dir = run_dir.as_ref();
    let mut damaged = Vec::new();
    for (_, folder) in list(&checkpoints_dir(run_dir))? {
        match Checkpoint::read(&folder) {
            Ok(checkpoint) => return Ok(Latest { checkpoint, damaged }),
            Err(Unread::Damaged(error)) => damaged.push(error),
            Err(Unread::Foreign(error) | Unread::Refused(error)) => return Err(error),
        }
    }
    Err(match damaged.into_iter().next() {
        Some(error) => error,
        None => Error::checkpoint(run_dir.display(), "has no checkpoints")
            .hint("the folder of a run that saved one"),
    })
}

/// Opens what a user means by a checkpoint: its own folder, `RUN/checkpoints/best`, or a run's, whose newest is taken.
///
/// # Errors
/// As [`Checkpoint::open`] and [`latest`].
pub fn find(path: impl AsRef<Path>) -> Result<Latest> {
    let path = path.as_ref();
    if let Some(best) = best::folder_of_best(path) {
        return Ok(Latest { checkpoint: Checkpoint::open(best)?, damaged: Vec::new() });
    }
    if is_checkpoint(path) {
        return Ok(Latest { checkpoint: Checkpoint::open(path)?, damaged: Vec::new() });
    }
    if !path.exists() {
        return Err(Error::checkpoint(path.display(), "found no such file or folder")
            .hint("the folder of a run, one of its checkpoints, or a .safetensors file"));
    }
    latest(path)
}

/// Whether a folder is one of a checkpoint, which it is as well where that cannot be read.
fn is_checkpoint(folder: &Path) -> bool {
    folder.is_dir() && folder.join(manifest::FILE).try_exists().unwrap_or(true)
}

/// Whether a run has saved anything, whole or not. What a save left that was killed does not count.
///
/// # Errors
/// When the folder of its checkpoints cannot be read.
pub fn any(run_dir: impl AsRef<Path>) -> Result<bool> {
    Ok(!list(&checkpoints_dir(run_dir.as_ref()))?.is_empty())
}

/// Where a run keeps its checkpoints.
pub fn checkpoints_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("checkpoints")
}

/// The folder of the checkpoint of a step.
fn folder_of(checkpoints: &Path, step: u64) -> PathBuf {
    checkpoints.join(format!("step-{step}"))
}

/// Suffix of a checkpoint that is being replaced by another of the same step.
const OLD: &str = ".old";

/// Suffix of a checkpoint of a later step than the one that a run went on from, which is no part of the run any more.
const ABANDONED: &str = ".abandoned";

/// The checkpoints in a folder, newest first, one being replaced after its replacement. Empty if there is no
/// such folder.
fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    list_named(folder, |suffix| suffix.is_empty() || suffix == OLD)
}

/// As [`list`], those that runs went back behind.
fn list_abandoned(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    list_named(folder, |suffix| suffix.ends_with(ABANDONED))
}

/// What lies in a folder called by a step and such a suffix, newest first.
fn list_named(folder: &Path, is_meant: impl Fn(&str) -> bool) -> Result<Vec<(u64, PathBuf)>> {
    let cannot = |cause| durable::io_error(folder, "cannot be read", cause);
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(cannot)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_prefix("step-")) else {
            continue;
        };
        let digits = name.find('.').unwrap_or(name.len());
        if let (Ok(step), suffix) = (name[..digits].parse::<u64>(), &name[digits..])
            && is_meant(suffix)
        {
            found.push((step, entry.path()));
        }
    }
    // A name comes before the same one with a suffix.
    found.sort_unstable_by(|(a, a_path), (b, b_path)| b.cmp(a).then_with(|| a_path.cmp(b_path)));
    Ok(found)
}

#[cfg(test)]
mod tests;
