//! What is done about bad samples, and how many there may be.

use std::fmt;
use std::str::FromStr;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is done about a sample that cannot be read or decoded, or whose target is out of range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadSample {
    /// The run ends with an error that names it.
    #[default]
    Error,
    /// It is replaced by another sample, or left out where it is held out, and counted. It is tried again each time.
    Skip,
    /// The same, and it is entered into the ledger of the run, once.
    Quarantine,
}

impl FromStr for OnBadSample {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "error" => Ok(Self::Error),
            "skip" => Ok(Self::Skip),
            "quarantine" => Ok(Self::Quarantine),
            _ => Err("expected error, skip or quarantine".into()),
        }
    }
}

/// How many samples of a part may be bad before the run ends: a number, as `100`, or a share of them, as `1%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// So many.
    Samples(u64),
    /// So many in a hundred, rounded down.
    Percent(f64),
}

impl Default for Budget {
    /// A hundred: what now and then is broken in a large data set passes, and a wrong format does not.
    fn default() -> Self {
        Self::Samples(100)
    }
}

impl Budget {
    /// Bad samples that a part of `len` samples may have.
    pub fn samples(self, len: usize) -> usize {
        match self {
            Self::Samples(samples) => usize::try_from(samples).unwrap_or(usize::MAX),
            Self::Percent(percent) => (percent / 100.0 * len as f64) as usize,
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse().ok().map(Self::Percent),
            None => text.parse().ok().map(Self::Samples),
        };
        let valid = |budget: &Self| match budget {
            Self::Samples(_) => true,
            Self::Percent(percent) => (0.0..=100.0).contains(percent),
        };
        parsed
            .filter(valid)
            .ok_or_else(|| "expected a number of samples, as 100, or a share, as 1%".into())
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Samples(samples) => write!(f, "{samples}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// A number as a number, a share as text.
impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Samples(samples) => serializer.serialize_u64(*samples),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrShare;

        impl Visitor<'_> for NumberOrShare {
            type Value = Budget;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of samples, as 100, or a share, as \"1%\"")
            }

            fn visit_u64<E: serde::de::Error>(self, samples: u64) -> Result<Budget, E> {
                Ok(Budget::Samples(samples))
            }

            fn visit_i64<E: serde::de::Error>(self, samples: i64) -> Result<Budget, E> {
                let wrong = |_| E::invalid_value(Unexpected::Signed(samples), &self);
                u64::try_from(samples).map(Budget::Samples).map_err(wrong)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Budget, E> {
                text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(NumberOrShare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_numbers_or_shares() {
        let samples = |text: &str, len| text.parse::<Budget>().map(|budget| budget.samples(len));
        assert_eq!(samples("0", 50), Ok(0));
        assert_eq!(samples("100", 50), Ok(100));
        assert_eq!(samples("1%", 1000), Ok(10));
        assert_eq!(samples("0.5 %", 399), Ok(1));
        assert_eq!(samples("100%", 7), Ok(7));
        for text in ["", "%", "-1", "1.5", "101%", "nan%", "-1%", "many"] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
    }

    #[test]
    fn budgets_survive_a_file() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct File {
            budget: Budget,
        }

        for budget in [Budget::Samples(3), Budget::Percent(0.5), Budget::default()] {
            let text = toml::to_string(&File { budget }).expect("a file");
            assert_eq!(toml::from_str(&text), Ok(File { budget }), "{text}");
        }
        for wrong in ["-3", "\"x\"", "1.5"] {
            assert!(toml::from_str::<File>(&format!("budget = {wrong}")).is_err(), "{wrong}");
        }
    }
}
