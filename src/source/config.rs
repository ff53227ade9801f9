//! How a data set is read, where its files leave a choice.

use serde::{Deserialize, Serialize};

use crate::batch::DType;
use crate::error::{Error, Result};
use crate::source::{Source, SourceInfo};

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
    /// Mean of each channel that inputs are normalised by, after division by 255; one value stands for all channels.
    /// Without it: what the data set says, or what its training part is found to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
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

    /// What `source` tells, with the mean and deviation that are given here, where they are.
    ///
    /// # Errors
    /// When they are given for samples that are no bytes, or not one for each channel.
    pub fn normalised(&self, source: &dyn Source) -> Result<SourceInfo> {
        let mut info = source.info().clone();
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
