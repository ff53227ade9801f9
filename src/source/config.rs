//! How a data set is read, where its files leave a choice.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::batch::DType;
use crate::decode::DecodeSize;
use crate::error::{Error, Result};
use crate::source::tokens::VOCABULARY_MAX;
use crate::source::{Source, SourceInfo, StreamFormat};

/// Side of an image in pixels at most.
const IMAGE_SIZE_MAX: usize = 16_384;

/// Samples that wait to be shuffled at most: with 100 kB each, 100 GB.
const SHUFFLE_BUFFER_MAX: usize = 1 << 20;

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
    /// At what size image files are decoded. Without it: in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode: Option<DecodeSize>,
    /// How the samples of a stream follow each other. Without it: what its beginning says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<StreamFormat>,
    /// Samples of a stream that wait to leave in random order. Without it: in the order in which they come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shuffle_buffer: Option<usize>,
    /// Folder of the cache of what is fetched from S3, GCS, Azure and HTTP. Without it: `cloud` in the folder of fetched
    /// data sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_cache_dir: Option<PathBuf>,
    /// Bytes that the cache may take; 32 GiB if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_cache_bytes: Option<u64>,
    /// Tokens that a model sees at once. Without it: 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// Tokens from the beginning of a training sample to that of the next. Without it: the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Number of different tokens, for files that do not say. Without it: one more than the highest found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<usize>,
    /// What text is turned into tokens by as it is opened: `bytes`, `gpt2`, or a `tokenizer.json` or its folder. Without
    /// it: bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Whether tokens attend only to those of their own document.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub document_mask: bool,
    /// The token that ends a document. Without it: the one that ends a text to the tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_end: Option<u32>,
    /// Mean of each channel that inputs are normalised by, after division by 255; one value stands for all channels.
    /// Without it: what the data set says, or what its training part is found to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
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
        match self.shuffle_buffer {
            Some(size) if !(1..=SHUFFLE_BUFFER_MAX).contains(&size) => {
                return wrong("--shuffle-buffer", size, &format!("1 to {SHUFFLE_BUFFER_MAX}"));
            }
            _ => {}
        }
        let tokens = [
            ("--context", self.context),
            ("--stride", self.stride),
            ("--vocabulary", self.vocabulary),
        ];
        for (flag, found) in tokens {
            if let Some(found) = found.filter(|found| !(1..=VOCABULARY_MAX).contains(found)) {
                return wrong(flag, found, &format!("1 to {VOCABULARY_MAX}"));
            }
        }
        if self.decode == Some(DecodeSize::Reduced) && cfg!(not(feature = "turbojpeg")) {
            let message = "this build decodes no JPEG at a reduced size";
            return Err(Error::config("--decode reduced", message)
                .hint("cargo install inflight --features turbojpeg"));
        }
        self.validate_statistics()?;
        match self.classes {
            Some(0) => wrong("--classes", 0, "at least 1"),
            _ => Ok(()),
        }
    }

    fn validate_statistics(&self) -> Result<()> {
        let lists = [("--mean", &self.mean, f32::MIN), ("--std", &self.std, f32::MIN_POSITIVE)];
        for (flag, list, least) in lists {
            let Some(list) = list else { continue };
            let expected = if least > 0.0 { "finite and above 0" } else { "finite" };
            if let Some(found) = list.iter().find(|x| !x.is_finite() || **x < least) {
                let message = format!("found {found}, expected numbers that are {expected}");
                return Err(Error::config(flag, message));
            }
            if list.is_empty() {
                return Err(Error::config(flag, "found no numbers, expected one a channel"));
            }
        }
        match (&self.mean, &self.std) {
            (Some(mean), Some(std)) if mean.len() == std.len() => Ok(()),
            (None, None) => Ok(()),
            (mean, std) => {
                let len = |list: &Option<Vec<f32>>| list.as_ref().map_or(0, Vec::len);
                let message = format!(
                    "found {} means and {} deviations, expected both, one a channel",
                    len(mean),
                    len(std)
                );
                Err(Error::config("--mean", message).hint("--mean 0.5 --std 0.5"))
            }
        }
    }

    /// What `source` tells, with the mean, the deviation and the size to decode at that are given here, where they are.
    ///
    /// # Errors
    /// When they are given for samples that are no bytes, or not one for each channel.
    pub fn normalised(&self, source: &dyn Source) -> Result<SourceInfo> {
        let mut info = source.info().clone();
        info.decode = self.decode.unwrap_or(info.decode);
        let (Some(mean), Some(std)) = (&self.mean, &self.std) else { return Ok(info) };
        let spec = source.spec();
        let channels = spec.input_shape.first().copied().unwrap_or(1);
        if spec.input_dtype != DType::U8 {
            let message = format!("found samples of {:?}, expected bytes", spec.input_dtype);
            return Err(Error::config("--mean", message).hint("leaving it out"));
        }
        if ![1, channels].contains(&mean.len()) {
            let message = format!("found {} numbers, expected 1 or {channels}", mean.len());
            return Err(Error::config("--mean", message).hint("a number a channel"));
        }
        (info.mean, info.std) = (mean.clone(), std.clone());
        Ok(info)
    }
}
