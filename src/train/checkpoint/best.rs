//! The best checkpoint of a run: which one it is, by what, and that it stays.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::folder_of;
use crate::durable::{self, NotRead};
use crate::error::{Error, Result};
use crate::train::event::EpochReport;

/// Beside the checkpoints: [`Best`].
pub(super) const FILE: &str = "best.json";

/// Far above what the file takes.
const BYTES_MAX: u64 = 4096;

/// What is measured in every validation, and decides which checkpoint is the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The lowest validation loss.
    #[default]
    ValLoss,
    /// The highest validation accuracy, for classifiers.
    ValAccuracy,
    /// None is the best, and only the newest stay.
    Off,
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "val_loss" => Ok(Self::ValLoss),
            "val_accuracy" => Ok(Self::ValAccuracy),
            "off" => Ok(Self::Off),
            _ => {
                let message = format!("found {name:?}, expected val_loss, val_accuracy or off");
                Err(Error::config("--keep-best", message))
            }
        }
    }
}

impl Metric {
    /// What it was in an epoch; nothing where it was not measured, or is not finite.
    pub(crate) fn of(self, epoch: &EpochReport) -> Option<f64> {
        let value = match self {
            Self::ValLoss => epoch.val_loss,
            Self::ValAccuracy => epoch.val_accuracy,
            Self::Off => None,
        };
        value.filter(|value| value.is_finite())
    }

    fn is_better(self, value: f64, than: f64) -> bool {
        match self {
            Self::ValLoss | Self::Off => value < than,
            Self::ValAccuracy => value > than,
        }
    }
}

/// The checkpoint that validation liked best.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// By what.
    pub metric: Metric,
    /// What that was.
    pub value: f64,
}

impl Best {
    /// Of a folder of checkpoints; nothing where no checkpoint is known to be the best, or it is gone. A file that says
    /// nothing intelligible is one that says nothing: no checkpoint depends on it.
    pub fn read(folder: &Path) -> Option<Self> {
        Self::try_read(folder).ok().flatten()
    }

    /// As [`Best::read`], for whoever would remove the best if it did not know.
    ///
    /// # Errors
    /// When the system refuses to read the file.
    pub(crate) fn try_read(folder: &Path) -> Result<Option<Self>> {
        let bytes = match durable::try_read_file(&folder.join(FILE), BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(NotRead::Wrong(_)) => return Ok(None),
            Err(NotRead::Refused(error)) => return Err(error),
        };
        let best = serde_json::from_slice(&bytes).ok();
        let is_there = |best: &Self| folder_of(folder, best.step).try_exists().unwrap_or(true);
        Ok(best.filter(is_there))
    }

    /// Whether an epoch was better.
    pub(crate) fn is_beaten(self, metric: Metric, value: f64) -> bool {
        self.metric != metric || metric.is_better(value, self.value)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let json = serde_json::to_vec(self)
            .map_err(|cause| Error::checkpoint(path.display(), format!("is no JSON: {cause}")))?;
        durable::replace_file(&path, &json)
    }
}

/// The folder of the best checkpoint that `RUN/checkpoints/best` stands for.
pub(super) fn folder_of_best(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|_| path.ends_with("best"))?;
    Best::read(folder).map(|best| folder_of(folder, best.step))
}
