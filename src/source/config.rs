//! How a data set is read, where its files leave a choice.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::source::tokens::VOCABULARY_MAX;

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
    /// Tokens that a model sees at once. Without it: 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// Tokens from the beginning of a training sample to that of the next. Without it: the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Number of different tokens, for files that do not say. Without it: one more than the highest found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<usize>,
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
        match self.classes {
            Some(0) => wrong("--classes", 0, "at least 1"),
            _ => Ok(()),
        }
    }
}
