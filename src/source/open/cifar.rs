//! Folders with CIFAR-10 batches.

use std::path::{Path, PathBuf};

use super::{Candidate, Dataset, Format, OpenOptions, files_with, info, with_statistics};
use crate::error::{Error, Result};
use crate::source::{cifar, manifest};

pub(super) const FORMAT: Format =
    Format { what: "a folder with CIFAR-10 batches (data_batch_1.bin, …)", claims, open };

fn claims(candidate: &Candidate) -> Result<bool> {
    Ok(find(candidate)?.is_some())
}

fn open(candidate: &Candidate, _options: &OpenOptions<'_>) -> Result<Dataset> {
    let path = &candidate.path;
    match find(candidate)? {
        Some((train, test)) => open_batches(path, train, test),
        None => Err(Error::data(path.display(), "found no CIFAR-10 batches any more")),
    }
}

/// The batches in a folder, or in the folder that the archive unpacks to.
fn find(candidate: &Candidate) -> Result<Option<(Vec<PathBuf>, Option<PathBuf>)>> {
    for dir in [candidate.path.clone(), candidate.path.join("cifar-10-batches-bin")] {
        let (train, test) = cifar_files(&dir)?;
        if !train.is_empty() || test.is_some() {
            return Ok(Some((train, test)));
        }
    }
    Ok(None)
}

/// The batches of a folder: those to train on, in order, and the one to test with.
fn cifar_files(folder: &Path) -> Result<(Vec<PathBuf>, Option<PathBuf>)> {
    if !folder.is_dir() {
        return Ok((Vec::new(), None));
    }
    let train = files_with(folder, |n| n.starts_with("data_batch_") && n.ends_with(".bin"))?;
    let test = folder.join("test_batch.bin");
    Ok((train, test.exists().then_some(test)))
}

fn open_batches(path: &Path, train: Vec<PathBuf>, test: Option<PathBuf>) -> Result<Dataset> {
    let (train, test) = match (train.is_empty(), test) {
        (true, Some(test)) => (vec![test], None),
        (_, test) => (train, test),
    };
    let names = manifest::by_name("cifar-10")?.map(|m| m.classes).unwrap_or_default();
    let train = cifar::open(&train, info(path, "train", &names))?;
    let test = test.map(|test| cifar::open(&[test], info(path, "test", &names))).transpose()?;
    with_statistics(path, train, test)
}
