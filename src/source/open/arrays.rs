//! NPY files in a folder, and NPZ archives.

use std::path::Path;

use super::{
    Candidate, Dataset, Format, OpenOptions, class_names, files_with, info, with_statistics,
};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::source::arrays::{NamedArrays, TEST, TRAIN};
use crate::source::npy::Arrays;

pub(super) const FORMAT: Format =
    Format { what: "an .npz archive or a folder with one or with x.npy and y.npy", claims, open };

fn claims(candidate: &Candidate) -> Result<bool> {
    if !candidate.is_folder {
        return Ok(candidate.has_extension(".npz"));
    }
    let arrays = Arrays::folder(&candidate.path)?;
    let archives = files_with(&candidate.path, |name| name.ends_with(".npz"))?;
    Ok(arrays.has(&TRAIN) || arrays.has(&TEST) || archives.len() == 1)
}

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let path = &candidate.path;
    if !candidate.is_folder {
        let folder = path.parent().unwrap_or(Path::new("."));
        return open_arrays(path, folder, Arrays::archive(path)?, options);
    }
    let arrays = Arrays::folder(path)?;
    if arrays.has(&TRAIN) || arrays.has(&TEST) {
        return open_arrays(path, path, arrays, options);
    }
    match &files_with(path, |name| name.ends_with(".npz"))?[..] {
        [npz] => open_arrays(npz, path, Arrays::archive(npz)?, options),
        _ => Err(Error::data(path.display(), "found no arrays any more")),
    }
}

/// Opens the arrays of `path`, with the class names that lie in `folder`.
pub(super) fn open_arrays(
    path: &Path,
    folder: &Path,
    mut arrays: impl NamedArrays,
    options: &OpenOptions<'_>,
) -> Result<Dataset> {
    let class_names = class_names(folder)?;
    let named = (!class_names.is_empty()).then_some(class_names.len());
    let classes = options.data().classes.or(named);
    let train = arrays.split(&TRAIN, classes, info(path, "train", &class_names))?;
    let test = if arrays.has(&TEST) {
        let classes = classes.or(train.spec().classes());
        let test = arrays.split(&TEST, classes, info(path, "test", &class_names))?;
        if test.spec() != train.spec() {
            return Err(Error::data(
                path.display(),
                format!(
                    "found a test split of {:?}, expected the same as the training split, {:?}",
                    test.spec(),
                    train.spec()
                ),
            ));
        }
        Some(test)
    } else {
        None
    };
    with_statistics(path, train, test)
}
