//! IDX files: a folder of them, or an images file with its labels beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::splits::split_named;
use super::{
    Candidate, Dataset, Format, OpenOptions, class_names, files_with, info, with_statistics,
};
use crate::error::{Error, Result};
use crate::source::{Source, SourceInfo, idx};

pub(super) const FORMAT: Format =
    Format { what: "a folder with IDX files (train-images-idx3-ubyte, …)", claims, open };

fn claims(candidate: &Candidate) -> Result<bool> {
    Ok(!find(candidate)?.is_empty())
}

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let pairs = find(candidate)?;
    if pairs.is_empty() {
        return Err(Error::data(candidate.path.display(), "found no IDX files any more"));
    }
    open_pairs(&candidate.path, &pairs, options)
}

/// The pairs of a folder, or the one of a file.
fn find(candidate: &Candidate) -> Result<Vec<Pair>> {
    let path = &candidate.path;
    if candidate.is_folder {
        return idx_pairs(path);
    }
    if !path.file_name().is_some_and(|name| name.to_string_lossy().contains("idx3-ubyte")) {
        return Ok(Vec::new());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    Ok(idx_pairs(folder)?.into_iter().filter(|pair| pair.images == *path).collect())
}

/// An images file, and the labels file that belongs to it.
struct Pair {
    images: PathBuf,
    labels: PathBuf,
    prefix: String,
}

impl Pair {
    /// The split that its name says; `t10k` is the test split of MNIST.
    fn split(&self) -> &'static str {
        if self.prefix.contains("t10k") { "test" } else { split_named(&self.prefix) }
    }

    /// The error of two pairs of one split, one of which would otherwise be left out in silence.
    fn beside(&self, other: &Self) -> Error {
        let message = format!(
            "found a second pair of files of the {} split beside {}, expected one",
            self.split(),
            self.images.display()
        );
        Error::data(other.images.display(), message)
            .hint("a folder for each data set, or the path of one images file")
    }
}

/// All pairs of IDX files in a folder, in the order of their names.
fn idx_pairs(folder: &Path) -> Result<Vec<Pair>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let split = |name: &str| {
        let stem = name.strip_suffix(".gz").unwrap_or(name);
        let prefix = stem.strip_suffix("idx3-ubyte")?.strip_suffix(['-', '.'])?;
        Some(prefix.strip_suffix("-images")?.to_owned())
    };
    let mut pairs: Vec<Pair> = Vec::new();
    for images in files_with(folder, |name| split(name).is_some())? {
        let name = images.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let prefix = split(&name).unwrap_or_default();
        if pairs.iter().any(|pair| pair.prefix == prefix) {
            continue; // The same file plain and compressed: the first will do.
        }
        let labels_name = name.replace("-images", "-labels").replace("idx3", "idx1");
        let plain = labels_name.strip_suffix(".gz").unwrap_or(&labels_name).to_owned();
        let choices = [labels_name, plain.clone(), format!("{plain}.gz")];
        let labels = choices.iter().map(|name| folder.join(name)).find(|path| path.exists());
        let Some(labels) = labels else {
            return Err(Error::data(
                images.display(),
                format!("found no labels beside it, expected {plain} or {plain}.gz"),
            ));
        };
        pairs.push(Pair { images, labels, prefix });
    }
    Ok(pairs)
}

/// Opens pairs of IDX files, each of the split that its name says.
fn open_pairs(path: &Path, pairs: &[Pair], options: &OpenOptions<'_>) -> Result<Dataset> {
    let only = |split: &str| {
        let mut found = pairs.iter().filter(|pair| pair.split() == split);
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => Err(first.beside(second)),
            (first, _) => Ok(first),
        }
    };
    let (validation, test) = (only("validation")?, only("test")?);
    let (train, validation, test) = match (only("train")?, test) {
        (Some(train), test) => (train, validation, test),
        // Splits to hold out alone are still something to train on.
        (None, Some(test)) => (test, validation, None),
        (None, None) => (&pairs[0], None, None),
    };
    let folder = train.images.parent().unwrap_or(Path::new("."));
    let class_names = class_names(folder)?;
    let named = (!class_names.is_empty()).then_some(class_names.len());
    let classes = options.data().classes.or(named).unwrap_or(idx::CLASSES);
    let read = |pair: &Pair, split: &str| {
        idx::open(&pair.images, &pair.labels, classes, info(path, split, &class_names))
    };
    let (train, test) = (read(train, "train")?, test.map(|t| read(t, "test")).transpose()?);
    let dataset = with_statistics(path, train, test)?;
    let Some(pair) = validation else { return Ok(dataset) };
    let (found, spec, of_train) = (read(pair, "val")?, dataset.train.spec(), dataset.train.info());
    if found.spec() != spec {
        let (found, expected) = (&found.spec().input_shape, &spec.input_shape);
        let message =
            format!("found shape {found:?}, expected that of the training split, {expected:?}");
        return Err(Error::data(pair.images.display(), message));
    }
    let (mean, std) = (of_train.mean.clone(), of_train.std.clone());
    let info = SourceInfo { mean, std, ..found.info().clone() };
    Ok(Dataset { validation: Some(Arc::new(found.with_info(info))), ..dataset })
}
