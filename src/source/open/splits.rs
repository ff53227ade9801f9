//! Files that are parts of one data set, and which split each is of.

use std::path::{Path, PathBuf};

use super::files_with;
use crate::error::Result;

/// The files of each split, in the order of their names.
#[derive(Default)]
pub(super) struct Splits {
    pub train: Vec<PathBuf>,
    pub validation: Vec<PathBuf>,
    pub test: Vec<PathBuf>,
}

impl Splits {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.train.is_empty() && self.validation.is_empty() && self.test.is_empty()
    }

    /// All files.
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.train.iter().chain(&self.validation).chain(&self.test)
    }

    /// Parts files by what their names say; those that say nothing are trained on.
    pub fn by_name(paths: Vec<PathBuf>) -> Self {
        let mut splits = Self::default();
        for path in paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            splits.of(split_named(&name)).push(path);
        }
        splits
    }

    /// The files whose names fit in the folders of splits (`train`, `val`, `test`), or else in the folder itself.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn find(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<Self> {
        let fits = |name: &str| !name.starts_with('.') && fits(name);
        let mut splits = Self::default();
        for part in files_with(folder, |name| split_of(&name.to_lowercase()).is_some())? {
            if part.is_dir() {
                let split = split_of_folder(&part).unwrap_or("train");
                splits.of(split).extend(files_with(&part, fits)?);
            }
        }
        let own = |path: &PathBuf| path.is_file();
        if splits.is_empty() {
            return Ok(Self::by_name(files_with(folder, fits)?.into_iter().filter(own).collect()));
        }
        Ok(splits)
    }

    /// Parts folders by their names; those whose names say nothing are left out.
    pub fn of_folders(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut splits = Self::default();
        for path in paths {
            if let Some(split) = split_of_folder(&path) {
                splits.of(split).push(path);
            }
        }
        splits
    }

    /// Files to hold out alone are still something to train on.
    pub fn with_training_part(mut self) -> Self {
        if self.train.is_empty() {
            let part = if self.test.is_empty() { &mut self.validation } else { &mut self.test };
            self.train = std::mem::take(part);
        }
        self
    }

    fn of(&mut self, split: &str) -> &mut Vec<PathBuf> {
        match split {
            "validation" => &mut self.validation,
            "test" => &mut self.test,
            _ => &mut self.train,
        }
    }
}

/// The split that a word in the name of a file stands for; a name that says nothing is of the training split.
pub(super) fn split_named(name: &str) -> &'static str {
    let name = name.to_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphabetic());
    words.find_map(split_of).unwrap_or("train")
}

/// The split that a folder is called after.
fn split_of_folder(path: &Path) -> Option<&'static str> {
    split_of(&path.file_name().unwrap_or_default().to_string_lossy().to_lowercase())
}

/// The split that a word stands for.
fn split_of(word: &str) -> Option<&'static str> {
    match word {
        "train" | "training" => Some("train"),
        "val" | "valid" | "validation" => Some("validation"),
        "test" | "testing" => Some("test"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_split() {
        let paths = ["imagenet-train-01.tar", "val_000.tar", "Test.tar", "contest-1.tar"];
        let splits = Splits::by_name(paths.map(PathBuf::from).to_vec());
        assert_eq!(splits.train, [Path::new("imagenet-train-01.tar"), Path::new("contest-1.tar")]);
        assert_eq!(splits.validation, [Path::new("val_000.tar")]);
        assert_eq!(splits.test, [Path::new("Test.tar")]);
    }
}
