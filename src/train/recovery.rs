//! What becomes of a run whose device was lost, or that diverged: it goes on from its newest checkpoint, a few times.
//!
//! Whoever drives a run asks a [`Recovery`] about its failure, and starts the trainer anew where that says so. Steps after
//! the checkpoint are run again, on a device opened again, and come out the same; so does the whole run.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::faults;

/// How often a run goes on after its device was lost, and how often after it diverged: what fails three times more has a
/// reason that a fourth time does not change.
pub const TRIES_MAX: u32 = 3;

/// How long a driver gets to come back before the first try; four times as long before each further one.
const PAUSE: Duration = Duration::from_secs(1);

/// By what the learning rate is multiplied after every divergence that a run goes back for.
pub const ROLLBACK_LR_FACTOR: f64 = 0.5;

/// What is done about a step whose gradients are not finite. Its update is left out in any case, on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNan {
    /// Counts it, and ends the run after so many in a row.
    #[default]
    Skip,
    /// Ends the run at the first one.
    Stop,
    /// As `Skip`, and then goes back to the newest checkpoint and on with half the learning rate; up to
    /// [`TRIES_MAX`] times.
    Rollback,
}

impl FromStr for OnNan {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "skip" => Ok(Self::Skip),
            "stop" => Ok(Self::Stop),
            "rollback" => Ok(Self::Rollback),
            _ => {
                let message = format!("found {name:?}, expected skip, stop or rollback");
                Err(Error::config("--on-nan", message))
            }
        }
    }
}

/// How a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resumption {
    /// On a device opened anew; the number of the try.
    Rebuilt(u32),
    /// With a lower learning rate; how often it was lowered.
    RolledBack(u32),
}

impl Resumption {
    /// How long to wait before: a driver that was reset needs a while until it lists its device again.
    pub fn pause(self) -> Duration {
        match self {
            // What was lost on purpose is there at once.
            Self::Rebuilt(_) if faults::planned() => Duration::ZERO,
            Self::Rebuilt(number) => PAUSE * 4_u32.pow(number.saturating_sub(1)),
            Self::RolledBack(_) => Duration::ZERO,
        }
    }
}

/// What a run went through so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    on_nan: OnNan,
    lost: u32,
    rollbacks: u32,
}

impl Recovery {
    /// Nothing yet.
    pub fn new(on_nan: OnNan) -> Self {
        Self { on_nan, lost: 0, rollbacks: 0 }
    }

    /// How often the learning rate was lowered by what went before: by this process, or as a checkpoint says.
    pub fn rollbacks(&self) -> u32 {
        self.rollbacks
    }

    /// Notes how often a checkpoint says that the learning rate was lowered before it.
    pub fn seen(&mut self, rollbacks: u32) {
        self.rollbacks = self.rollbacks.max(rollbacks);
    }

    /// Whether and how a run goes on that failed while it was under way.
    pub fn after(&mut self, failure: &Error) -> Option<Resumption> {
        match failure.kind() {
            ErrorKind::Device if self.lost < TRIES_MAX => {
                self.lost += 1;
                Some(Resumption::Rebuilt(self.lost))
            }
            ErrorKind::Diverged if self.on_nan == OnNan::Rollback && self.rollbacks < TRIES_MAX => {
                self.rollbacks += 1;
                Some(Resumption::RolledBack(self.rollbacks))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stage;

    #[test]
    fn three_tries_each_and_nothing_else_is_tried_again() {
        let mut recovery = Recovery::new(OnNan::Rollback);
        let lost = Error::device("a device", "was lost");
        let diverged = Error::new(Stage::Compute, ErrorKind::Diverged, "step 3", "not finite");
        let tries: Vec<_> = (0..4).map(|_| recovery.after(&lost)).collect();
        let rebuilt = Resumption::Rebuilt;
        assert_eq!(tries, [Some(rebuilt(1)), Some(rebuilt(2)), Some(rebuilt(3)), None]);
        recovery.seen(2);
        let tries: Vec<_> = (0..2).map(|_| recovery.after(&diverged)).collect();
        assert_eq!(tries, [Some(Resumption::RolledBack(3)), None]);
        for on_nan in [OnNan::Skip, OnNan::Stop] {
            assert_eq!(Recovery::new(on_nan).after(&diverged), None);
        }
        let mut recovery = Recovery::new(OnNan::Rollback);
        assert_eq!(recovery.after(&Error::data("a file", "is gone")), None);
        assert_eq!(recovery.after(&Error::checkpoint("a file", "disk full")), None);
    }
}
