//! How a data set is read, where its files leave a choice.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::source::StreamFormat;

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
}

impl DataConfig {
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
        match self.classes {
            Some(0) => wrong("--classes", 0, "at least 1"),
            _ => Ok(()),
        }
    }
}
