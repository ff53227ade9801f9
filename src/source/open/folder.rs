//! Folders of image files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::splits::Splits;
use super::{Candidate, Dataset, Format, OpenOptions};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::source::folder::{Folder, has_images, subfolders};

pub(super) const FORMAT: Format =
    Format { what: "a folder with a folder of images for each class", claims, open };

fn claims(candidate: &Candidate) -> Result<bool> {
    if !candidate.is_folder {
        return Ok(false);
    }
    let parts = parts(&candidate.path)?;
    holds_classes(parts.train.first().unwrap_or(&candidate.path))
}

/// Whether there is a folder with an image in a folder.
fn holds_classes(folder: &Path) -> Result<bool> {
    Ok(subfolders(folder)?.iter().any(|name| has_images(&folder.join(name))))
}

/// The folders of the parts of a folder: all of it is trained on where it has none. Nothing is trained on where it has only
/// parts to hold out.
fn parts(root: &Path) -> Result<Splits> {
    let folders = subfolders(root)?;
    let parts = Splits::of_folders(folders.iter().map(|name| root.join(name)));
    let held_out = parts.validation.len() + parts.test.len();
    let is_parted = match parts.train.first() {
        // One called `train` beside others may be a class.
        Some(train) => held_out > 0 || holds_classes(train)?,
        // So may one called `test`, but not all there are.
        None => held_out > 0 && held_out == folders.len(),
    };
    Ok(if is_parted { parts } else { Splits { train: vec![root.into()], ..Default::default() } })
}

/// The folder of a part, if there is one.
fn only(folders: &[PathBuf]) -> Result<Option<&PathBuf>> {
    let [first, second, ..] = folders else { return Ok(folders.first()) };
    let message = format!("found a second folder of the part {}, expected one", first.display());
    Err(Error::data(second.display(), message).hint("putting them together"))
}

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let (root, data) = (&candidate.path, options.data());
    let parts = parts(root)?;
    let Some(train_folder) = only(&parts.train)? else {
        let found: Vec<_> = parts.all().map(|folder| folder.display().to_string()).collect();
        let message = format!("found only {}, expected a folder train", found.join(", "));
        return Err(Error::data(root.display(), message).hint("the path of one of them"));
    };
    let classes = classes(train_folder)?;
    let name = |part: &str| format!("{} ({part})", root.display());
    let train = Folder::open(train_folder, &classes, data, name("train"))?;
    if let Some(class) = train.empty_class() {
        let message = "found no image in it or below, expected some of each class to train on";
        return Err(Error::data(train_folder.join(class).display(), message)
            .hint("removing the folder, if it is no class"));
    }
    let held_out = |folders: &[PathBuf], part| match only(folders)? {
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
