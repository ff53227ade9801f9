//! How often a run saves.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// How often a run saves on its way; it also does at its end. Written as a number of steps, a time (`30s`, `10m`, `2h`),
/// or `epoch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cadence {
    /// At the end of every epoch; of a stream, which has none, every ten minutes.
    #[default]
    Epoch,
    /// Every so many steps, at least one.
    Steps(u64),
    /// After the first step that begins so long after the save before.
    Time(Duration),
}

/// Between two saves of a run over a stream that is to save at the end of every epoch, of which a stream has none: little
/// enough to lose where what was used is not sent again, and long against what a save takes.
const STREAM_EVERY: Duration = Duration::from_secs(600);

/// Far above any run: what a second is for.
const TIME_MAX_S: u64 = 365 * 86_400;

impl Cadence {
    /// Every so many steps; 0 stands for every epoch, as it always has.
    pub fn steps(steps: u64) -> Self {
        if steps == 0 { Self::Epoch } else { Self::Steps(steps) }
    }

    /// The same for a run over a stream, whose one epoch never ends.
    pub(crate) fn of_stream(self) -> Self {
        match self {
            Self::Epoch => Self::Time(STREAM_EVERY),
            every => every,
        }
    }
}

impl From<u64> for Cadence {
    fn from(steps: u64) -> Self {
        Self::steps(steps)
    }
}

impl FromStr for Cadence {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "epoch" {
            return Ok(Self::Epoch);
        }
        if let Ok(steps) = text.parse::<u64>() {
            return Ok(Self::steps(steps));
        }
        let (number, unit_s) = match text.as_bytes().last() {
            Some(b's') => (&text[..text.len() - 1], 1),
            Some(b'm') => (&text[..text.len() - 1], 60),
            Some(b'h') => (&text[..text.len() - 1], 3600),
            _ => ("", 1),
        };
        let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_s));
        match seconds {
            Some(seconds) if (1..=TIME_MAX_S).contains(&seconds) => {
                Ok(Self::Time(Duration::from_secs(seconds)))
            }
            _ => {
                let message =
                    format!("found {text:?}, expected a number of steps, a time or epoch");
                Err(Error::config("--checkpoint-every", message).hint("500, 30s, 10m or epoch"))
            }
        }
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch => f.write_str("epoch"),
            Self::Steps(steps) => write!(f, "{steps}"),
            Self::Time(time) => write!(f, "{}s", time.as_secs()),
        }
    }
}

impl Serialize for Cadence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Steps(steps) => serializer.serialize_u64(*steps),
            Self::Epoch | Self::Time(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Cadence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a number of steps, a time such as \"30s\", or \"epoch\""
        )]
        enum Written {
            Steps(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Steps(steps) => Ok(Self::steps(steps)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_without_epochs_is_saved_by_time() {
        assert_eq!(Cadence::Epoch.of_stream(), Cadence::Time(STREAM_EVERY));
        for every in [Cadence::Steps(7), Cadence::Time(Duration::from_secs(5))] {
            assert_eq!(every.of_stream(), every, "what was asked for stays");
        }
    }

    #[test]
    fn steps_times_and_epochs_come_back_as_they_were() {
        let of = |text: &str| text.parse::<Cadence>().expect("a cadence");
        assert_eq!([of("0"), of("epoch"), of("7")], [0.into(), Cadence::Epoch, Cadence::Steps(7)]);
        let times = ["90s", "2m", "1h"].map(|text| of(text).to_string());
        assert_eq!(times, ["90s", "120s", "3600s"]);
        for wrong in ["", "s", "-1", "0s", "1.5s", "7d", "epochs", "99999999999h", "30 s", "é"] {
            let error = wrong.parse::<Cadence>().expect_err(wrong).to_string();
            assert!(error.contains("try 500, 30s, 10m or epoch"), "{error}");
        }
    }
}
