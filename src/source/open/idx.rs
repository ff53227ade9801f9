//! IDX files: a folder of them, or an images file with its labels beside it.

use std::path::{Path, PathBuf};

use super::{
    Candidate, Dataset, Format, OpenOptions, class_names, files_with, info, with_statistics,
};
use crate::error::{Error, Result};
use crate::source::idx;

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

/// Opens pairs of IDX files: `t10k` or `test` is the test split, the other one is trained on.
fn open_pairs(path: &Path, pairs: &[Pair], options: &OpenOptions<'_>) -> Result<Dataset> {
    let is_test = |pair: &&Pair| pair.prefix.contains("t10k") || pair.prefix.contains("test");
    let test = pairs.iter().find(is_test);
    let (train, test) = match pairs.iter().find(|pair| !is_test(pair)) {
        Some(train) => (train, test),
        // A test split alone is still something to train on.
        None => (&pairs[0], None),
    };
    let folder = train.images.parent().unwrap_or(Path::new("."));
    let class_names = class_names(folder)?;
    let named = (!class_names.is_empty()).then_some(class_names.len());
    let classes = options.data().classes.or(named).unwrap_or(idx::CLASSES);
    let read = |pair: &Pair, split: &str| {
        idx::open(&pair.images, &pair.labels, classes, info(path, split, &class_names))
    };
    let (train, test) = (read(train, "train")?, test.map(|t| read(t, "test")).transpose()?);
    with_statistics(path, train, test)
}
