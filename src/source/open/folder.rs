//! Folders of image files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Candidate, Dataset, Format, OpenOptions};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::source::folder::{Folder, has_images, subfolders};

pub(super) const FORMAT: Format =
    Format { what: "a folder with a folder of images for each class", claims, open };

/// What the folder of the training part may be called.
const TRAIN: [&str; 2] = ["train", "training"];
/// What the folder of the part to validate with may be called.
const VALIDATION: [&str; 3] = ["val", "valid", "validation"];
/// What the folder of the part to test with may be called.
const TEST: [&str; 2] = ["test", "testing"];

fn claims(candidate: &Candidate) -> Result<bool> {
    if !candidate.is_folder {
        return Ok(false);
    }
    let parts = Parts::find(&candidate.path);
    Ok(subfolders(&parts.train)?.iter().any(|name| has_images(&parts.train.join(name))))
}

/// The folders of all parts.
struct Parts {
    train: PathBuf,
    validation: Option<PathBuf>,
    test: Option<PathBuf>,
}

impl Parts {
    /// The parts of a folder; without a folder for training, all of it is trained on.
    fn find(root: &Path) -> Self {
        let first =
            |names: &[&str]| names.iter().map(|name| root.join(name)).find(|path| path.is_dir());
        match first(&TRAIN) {
            Some(train) => Self { train, validation: first(&VALIDATION), test: first(&TEST) },
            None => Self { train: root.into(), validation: None, test: None },
        }
    }
}

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let root = &candidate.path;
    let (parts, data) = (Parts::find(root), options.data());
    let classes = classes(&parts.train)?;
    let name = |part: &str| format!("{} ({part})", root.display());
    let train = Folder::open(&parts.train, &classes, data, name("train"))?;
    if let Some(class) = train.empty_class() {
        let message = "found no image in it or below, expected some of each class to train on";
        return Err(Error::data(parts.train.join(class).display(), message)
            .hint("removing the folder, if it is no class"));
    }
    let held_out = |folder: &Option<PathBuf>, part| match folder {
        None => Ok(None),
        Some(folder) => {
            expect_known(folder, &classes)?;
            let source = Folder::open(folder, &classes, data, name(part))?;
            Ok(Some(Arc::new(source.with_spec(train.spec().clone())) as Arc<dyn Source>))
        }
    };
    let (validation, test) = (held_out(&parts.validation, "val")?, held_out(&parts.test, "test")?);
    let name = root.display().to_string();
    Ok(Dataset { validation, ..Dataset::new(name, root, Arc::new(train), test) })
}

/// The classes of a part: its folders, in the order of their names.
fn classes(folder: &Path) -> Result<Vec<String>> {
    let name = |name: OsString| {
        name.into_string().map_err(|name| {
            let path = folder.join(name);
            let message = "found a class whose name is not UTF-8, which no report could show";
            Error::data(path.display(), message).hint("renaming the folder")
        })
    };
    subfolders(folder)?.into_iter().map(name).collect()
}

/// Checks that a held-out part has no other classes than the training part.
fn expect_known(folder: &Path, classes: &[String]) -> Result<()> {
    let found = self::classes(folder)?;
    let Some(name) = found.iter().find(|name| !classes.contains(name)) else { return Ok(()) };
    let message =
        format!("found a class without training images, expected some of {}", classes.join(", "));
    Err(Error::data(folder.join(name).display(), message))
}
