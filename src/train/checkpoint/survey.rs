//! Looking at checkpoints without loading them into a run: which there are, whether they are whole, and what differs
//! between two.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::best::{Best, folder_of_best};
use super::manifest::{Manifest, Unread};
use super::{
    ABANDONED, Checkpoint, MODEL_FILE, STATE_FILE, checkpoints_dir, is_checkpoint, list,
    list_abandoned,
};
use crate::error::{Error, Result};
use crate::train::weights::{Seen, Weights};

/// A checkpoint that was found.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its folder.
    pub path: PathBuf,
    /// What its manifest says, if that can be read; its files were not looked at.
    pub manifest: Result<Manifest>,
    /// By what it is the best of its run, if it is.
    pub best: Option<Best>,
}

impl Listed {
    fn read(path: PathBuf, best: Option<Best>) -> Self {
        let manifest = Manifest::read(&path).map_err(Unread::into_error);
        let best = best.filter(|best| manifest.as_ref().is_ok_and(|m| m.step == best.step));
        Self { path, manifest, best }
    }

    /// Whether it is no part of its run any more, which went back behind it.
    pub fn is_abandoned(&self) -> bool {
        self.path.to_string_lossy().ends_with(ABANDONED)
    }

    /// Size of its files in bytes, without the manifest.
    pub fn bytes(&self) -> Option<u64> {
        let manifest = self.manifest.as_ref().ok()?;
        Some(manifest.files.values().map(|file| file.bytes).sum())
    }

    /// Reads all of it and holds every file against its hash.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], told apart.
    pub fn verify(&self) -> Result<(), Unread> {
        Checkpoint::read(&self.path).map(drop)
    }
}

/// The checkpoints that `path` stands for, oldest first: those of a run, or of a folder of checkpoints, or a single one.
///
/// # Errors
/// When there is none, or the folder cannot be read.
pub fn survey(path: impl AsRef<Path>) -> Result<Vec<Listed>> {
    let path = path.as_ref();
    if let Some(best) = folder_of_best(path) {
        return Ok(vec![Listed::read(best, path.parent().and_then(Best::read))]);
    }
    if is_checkpoint(path) {
        return Ok(vec![Listed::read(path.into(), path.parent().and_then(Best::read))]);
    }
    let folder = folder_of_all(path);
    let best = Best::read(&folder);
    let found = list(&folder)?.into_iter().rev();
    let found: Vec<_> = found.map(|(_, path)| Listed::read(path, best)).collect();
    if found.is_empty() {
        return Err(Error::checkpoint(path.display(), "has no checkpoints")
            .hint("the folder of a run that saved one, or of a checkpoint"));
    }
    Ok(found)
}

/// The checkpoints that the run, or the folder of checkpoints, went back behind, oldest first. They are no part of the run
/// any more and stay until somebody removes them.
///
/// # Errors
/// When the folder cannot be read.
pub fn abandoned(path: impl AsRef<Path>) -> Result<Vec<Listed>> {
    let found = list_abandoned(&folder_of_all(path.as_ref()))?.into_iter().rev();
    Ok(found.map(|(_, path)| Listed::read(path, None)).collect())
}

/// Where the checkpoints of a run lie, or of a folder of checkpoints.
fn folder_of_all(path: &Path) -> PathBuf {
    let inside = checkpoints_dir(path);
    if inside.is_dir() { inside } else { path.into() }
}

/// What differs between two checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differences {
    /// Their steps.
    pub steps: [u64; 2],
    /// The seeds of their runs.
    pub seeds: [u64; 2],
    /// Tensors that are the same, bit for bit.
    pub same: usize,
    /// The others.
    pub tensors: Vec<Difference>,
}

/// A tensor that differs between two checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The file it is in.
    pub file: String,
    /// Its name.
    pub name: String,
    /// Type and shape in the first, if it is there.
    pub a: Option<String>,
    /// Type and shape in the second, if it is there.
    pub b: Option<String>,
    /// Of tensors of one type and shape: how their values differ.
    pub values: Option<ValueDifference>,
}

/// How the values of two tensors differ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ValueDifference {
    /// Values that are not the same, bit for bit.
    pub differing: usize,
    /// Of so many.
    pub of: usize,
    /// Largest absolute difference; NaN where one is not a number.
    pub abs_max: f64,
    /// The Euclidean norm of the difference, divided by that of the first tensor.
    pub relative: f64,
}

/// Compares two checkpoints tensor by tensor.
pub fn diff(a: &Checkpoint, b: &Checkpoint) -> Differences {
    let (mut same, mut tensors) = (0, Vec::new());
    for (file, [a, b]) in
        [(MODEL_FILE, [&a.weights, &b.weights]), (STATE_FILE, [&a.state, &b.state])]
    {
        let (same_here, different) = diff_file(file, a, b);
        same += same_here;
        tensors.extend(different);
    }
    let of = |get: fn(&Manifest) -> u64| [get(&a.manifest), get(&b.manifest)];
    Differences { steps: of(|m| m.step), seeds: of(|m| m.seed), same, tensors }
}

fn diff_file(file: &str, a: &Weights, b: &Weights) -> (usize, Vec<Difference>) {
    let mut names: Vec<&str> = a.names().chain(b.names()).collect();
    names.sort_unstable();
    names.dedup();
    let (mut same, mut different) = (0, Vec::new());
    for name in names {
        let (left, right) = (a.tensor(name), b.tensor(name));
        let both = left.as_ref().zip(right.as_ref());
        let alike = both.filter(|(l, r)| (l.dtype, &l.shape) == (r.dtype, &r.shape));
        let values = alike.map(|(left, right)| compare(left, right));
        if values.is_some_and(|values| values.differing == 0) {
            same += 1;
            continue;
        }
        let kind = |tensor: Seen<'_>| format!("{} {:?}", tensor.dtype, tensor.shape);
        let (a, b) = (left.map(kind), right.map(kind));
        different.push(Difference { file: file.into(), name: name.into(), a, b, values });
    }
    (same, different)
}

fn compare(a: &Seen<'_>, b: &Seen<'_>) -> ValueDifference {
    let of = a.shape.iter().product();
    let (mut differing, mut abs_max, mut square, mut norm) = (0, 0.0f64, 0.0, 0.0);
    for (&a, &b) in a.values.iter().zip(b.values) {
        let apart = (f64::from(a) - f64::from(b)).abs();
        if a.to_bits() != b.to_bits() {
            differing += 1;
            // `max` would leave a NaN out.
            abs_max =
                if apart.is_nan() || abs_max.is_nan() { f64::NAN } else { abs_max.max(apart) };
        }
        square += apart * apart;
        norm += f64::from(a).powi(2);
    }
    ValueDifference { differing, of, abs_max, relative: square.sqrt() / norm.sqrt() }
}
