//! How a data set is read, where its files leave a choice.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Side of an image in pixels at most.
const IMAGE_SIZE_MAX: usize = 16_384;

/// The `[data]` table of a configuration; each key overrides what the files themselves suggest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Number of classes, for files that do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Rows and columns of images as the model sees them. Without it: the size that the files have in common, or 224.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// 1 for grey images, 3 for colour. Without it: what the files are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// File or folder with the test part. Without it: a part of the data set itself, or for a table the file beside it
    /// whose name has `test` in place of `train`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// The column of a table that is predicted: its name, its number from 1 on, or `last`. Without it: the one called
    /// `target`, `label`, `class` or `y`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Columns of a table that go in, or, with a minus before them, that do not. Empty: all but the target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Columns of numbers that are names of categories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categorical: Vec<String>,
    /// Columns of numbers that are cut into so many buckets of equally many rows, as `age:10`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bucketize: Vec<String>,
    /// Whether the target is a class or a number. Without it: text and whole numbers are classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Whether the first row of a table names its columns. Without it: told by what is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// The folder that the paths in a list of files are relative to, and must lie in. Without it: that of the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_root: Option<PathBuf>,
    /// Bytes that a table in a format with random access may take in memory; a larger one is read from the disk as it is
    /// needed. Without it: 1 GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_bytes: Option<usize>,
}

/// What a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One of some classes.
    Classify,
    /// A number.
    Regress,
}

impl std::str::FromStr for Task {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "classify" => Ok(Self::Classify),
            "regress" => Ok(Self::Regress),
            _ => Err(format!("found {name:?}, expected classify or regress")),
        }
    }
}

/// Bytes that a table may take in memory where nothing else is said.
const TABLE_BYTES: usize = 1 << 30;

impl DataConfig {
    /// Bytes that a table may take in memory.
    pub fn table_bytes(&self) -> usize {
        self.table_bytes.unwrap_or(TABLE_BYTES)
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// Naming the first flag that is out of range, what was found and what is expected.
    pub fn validate(&self) -> Result<()> {
        let wrong = |flag: &str, found: usize, expected: &str| {
            Err(Error::config(flag, format!("found {found}, expected {expected}")))
        };
        match self.image_size {
            Some(size) if !(1..=IMAGE_SIZE_MAX).contains(&size) => {
                return wrong("--image-size", size, &format!("1 to {IMAGE_SIZE_MAX}"));
            }
            _ => {}
        }
        match self.channels {
            Some(channels) if ![1, 3].contains(&channels) => {
                return wrong("--channels", channels, "1 or 3");
            }
            _ => {}
        }
        match self.classes {
            Some(0) => wrong("--classes", 0, "at least 1"),
            _ => Ok(()),
        }
    }
}
