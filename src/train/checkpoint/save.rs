//! Saving: a temporary folder, every byte of it on the disk, and then its name.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::best::Best;
use super::contents::state_tensors;
use super::manifest::{self, FORMAT, FileEntry, Manifest, TensorEntry, sha256};
use super::{ABANDONED, MODEL_FILE, OLD, STATE_FILE, best, checkpoints_dir, folder_of, list};
use crate::durable::{self, Temporary, io_error};
use crate::error::{Error, Result};
use crate::executor::Snapshot;
use crate::graph::plan::Program;
use crate::train::book::Progress;
use crate::train::event::CheckpointReport;
use crate::train::weights::{encode, model_tensors};

/// Checkpoints that stay at least, and by default: the newest, and one more in case it is damaged.
pub const KEEP_MIN: usize = 2;

/// Saves a checkpoint of `program` into `run_dir`, and then removes all but the newest `keep`, which are never fewer than
/// [`KEEP_MIN`], and the [best](super::best).
///
/// # Errors
/// When something cannot be written; earlier checkpoints are then untouched, and no temporary file is left.
pub fn save(
    run_dir: &Path,
    program: &Program,
    seed: u64,
    snapshot: &Snapshot,
    progress: Progress,
    keep: usize,
) -> Result<CheckpointReport> {
    let folder = checkpoints_dir(run_dir);
    durable::create_folders(&folder)?;
    let target = folder_of(&folder, progress.step);
    let temporary = Temporary::beside(&target);
    let into = temporary.path();
    durable::create_folder(into)?;
    let bytes = write_files(into, run_dir, program, seed, snapshot, progress)?;
    durable::sync_folder(into)?;
    publish(into, &target)?;
    durable::sync_folder(&folder)?;
    prune(&folder, &target, keep)?;
    Ok(CheckpointReport { step: progress.step, path: target, bytes })
}

/// Writes the three files and returns how many bytes they take; the manifest comes last.
fn write_files(
    into: &Path,
    run_dir: &Path,
    program: &Program,
    seed: u64,
    snapshot: &Snapshot,
    progress: Progress,
) -> Result<u64> {
    let (mut files, mut tensors, mut bytes) = (BTreeMap::new(), Vec::new(), 0);
    for (file, contents) in [
        (MODEL_FILE, model_tensors(program, snapshot, progress.step)?),
        (STATE_FILE, state_tensors(program, snapshot)?),
    ] {
        let encoded = encode(&contents)?;
        durable::write_new(&into.join(file), &encoded)?;
        let entry = FileEntry { bytes: encoded.len() as u64, sha256: sha256(&encoded) };
        bytes += entry.bytes;
        files.insert(file.to_string(), entry);
        tensors.extend(contents.into_iter().map(|(name, tensor)| TensorEntry {
            name,
            shape: tensor.shape().to_vec(),
            file: file.to_string(),
        }));
    }
    let config = fs::read(run_dir.join("config.toml")).ok();
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_string(),
        step: progress.step,
        seed,
        config_sha256: config.map(|config| sha256(&config)),
        progress,
        files,
        tensors,
        sha256: String::new(),
    };
    let manifest = manifest.seal()?;
    durable::write_new(&into.join(manifest::FILE), &manifest)?;
    Ok(bytes + manifest.len() as u64)
}

/// Gives a finished folder its name. One of the same step steps aside first, under a name by which it is
/// still found, since a folder cannot be renamed over a full one.
fn publish(finished: &Path, target: &Path) -> Result<()> {
    let cannot = |cause| io_error(target, "cannot be replaced", cause);
    match fs::symlink_metadata(target) {
        Err(_) => return durable::rename(finished, target).map_err(cannot),
        Ok(metadata) if !metadata.is_dir() => {
            return Err(Error::checkpoint(target.display(), "is in the way: not a folder")
                .hint("removing it"));
        }
        Ok(_) => {}
    }
    let mut old = target.as_os_str().to_owned();
    old.push(OLD);
    let old = Path::new(&old);
    if fs::symlink_metadata(old).is_ok() {
        drop(set_aside(old)?);
    }
    durable::rename(target, old).map_err(cannot)?;
    durable::rename(finished, target).map_err(|cause| {
        // Back to where it was; if that fails too it is still found under its other name.
        let _ = durable::rename(old, target);
        cannot(cause)
    })
}

/// Makes the checkpoints in `run_dir` those of a run that goes on after `first_step`, and has the folder to itself: what a
/// killed save had stepped aside gets its name back, and what is of later steps is set aside, since it would count as
/// newer than all that the run saves. It is not removed: somebody may have gone back by mistake.
///
/// # Errors
/// When something cannot be read or renamed.
pub(crate) fn settle(run_dir: &Path, first_step: u64) -> Result<()> {
    let folder = checkpoints_dir(run_dir);
    let mut renamed = false;
    let mut rename = |from: &Path, to: &Path| {
        renamed = true;
        durable::rename(from, to).map_err(|cause| io_error(from, "cannot be renamed", cause))
    };
    for (step, path) in list(&folder)? {
        let named = folder_of(&folder, step);
        if path.to_string_lossy().ends_with(OLD) && !named.exists() {
            rename(&path, &named)?;
        }
    }
    if Best::try_read(&folder)?.is_some_and(|best| best.step > first_step) {
        let path = folder.join(best::FILE);
        durable::remove(&path).map_err(|cause| io_error(&path, "cannot be removed", cause))?;
    }
    for (_, path) in list(&folder)?.into_iter().filter(|&(step, _)| step > first_step) {
        let mut aside = path.as_os_str().to_owned();
        aside.push(ABANDONED);
        let aside = Path::new(&aside);
        durable::remove(aside).map_err(|cause| io_error(aside, "cannot be removed", cause))?;
        rename(&path, aside)?;
    }
    if renamed { durable::sync_folder(&folder) } else { Ok(()) }
}

/// Gives a checkpoint that goes a name by which it is not found, for good: half of one would be found damaged.
fn set_aside(checkpoint: &Path) -> Result<Temporary> {
    let aside = Temporary::beside(checkpoint);
    durable::rename(checkpoint, aside.path())
        .map_err(|cause| io_error(checkpoint, "cannot be removed", cause))?;
    durable::sync_folder(durable::parent(checkpoint))?;
    Ok(aside)
}

/// Removes all but `keep` checkpoints and the best, never the one just written, and what interrupted saves left. While it
/// cannot be read which is the best, all stay.
fn prune(folder: &Path, written: &Path, keep: usize) -> Result<()> {
    let Ok(best) = Best::try_read(folder) else { return durable::remove_temporaries(folder) };
    let best = best.map(|best| best.step);
    let (mut kept, mut aside) = (1, Vec::new());
    for (step, path) in list(folder)? {
        let replaced = path.to_string_lossy().ends_with(OLD);
        if path == written || (!replaced && kept < keep.max(KEEP_MIN)) {
            kept += usize::from(path != written);
            continue;
        }
        if !replaced && best == Some(step) {
            continue;
        }
        // Removed with the rest below, or when something fails before.
        aside.push(set_aside(&path)?);
    }
    durable::remove_temporaries(folder)
}
