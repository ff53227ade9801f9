//! Transforms as a configuration names them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::transform::{HorizontalFlip, PadCrop, RandomResizedCrop, Transform};

/// A transform and its settings: a name alone, or a table with `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TransformConfig {
    /// [`HorizontalFlip`].
    HorizontalFlip(HorizontalFlip),
    /// [`PadCrop`].
    PadCrop(PadCrop),
    /// [`RandomResizedCrop`].
    RandomResizedCrop(RandomResizedCrop),
}

/// Names of all transforms.
const NAMES: [&str; 3] = ["horizontal_flip", "pad_crop", "random_resized_crop"];

impl TransformConfig {
    /// The transform itself.
    pub fn build(&self) -> Box<dyn Transform> {
        match *self {
            Self::HorizontalFlip(transform) => Box::new(transform),
            Self::PadCrop(transform) => Box::new(transform),
            Self::RandomResizedCrop(transform) => Box::new(transform),
        }
    }

    /// Reads a list as flags give it: `random-resized-crop:scale=[0.3,1],horizontal-flip`.
    ///
    /// # Errors
    /// Naming the transform that is not known, or whose settings are wrong.
    pub fn parse_list(list: &str) -> Result<Vec<Self>> {
        split_list(list).map(str::parse).collect()
    }
}

/// Splits at commas outside of brackets.
fn split_list(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let parts = list.split(move |c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

impl FromStr for TransformConfig {
    type Err = Error;

    /// Reads `name` or `name:key=value:key=value`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |message: String| Error::config(format!("--transforms {text}"), message);
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default().trim().replace('-', "_");
        if !NAMES.contains(&&*name) {
            return Err(wrong(format!("found {name}, expected one of {}", NAMES.join(", "))));
        }
        let mut toml = format!("type = {name:?}\n");
        parts.for_each(|setting| toml.extend([setting, "\n"]));
        toml::from_str(&toml).map_err(|e| wrong(e.message().replace('\n', ", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_names_and_settings() {
        let found = TransformConfig::parse_list(
            "random-resized-crop:scale=[0.3,1], horizontal_flip:probability=0.25,pad-crop:padding=4",
        );
        let expected = vec![
            TransformConfig::RandomResizedCrop(RandomResizedCrop {
                scale: [0.3, 1.0],
                ..Default::default()
            }),
            TransformConfig::HorizontalFlip(HorizontalFlip { probability: 0.25 }),
            TransformConfig::PadCrop(PadCrop { padding: 4 }),
        ];
        assert_eq!(found.expect("all are known"), expected);
    }

    #[test]
    fn what_is_not_known_is_named() {
        let message = |list| TransformConfig::parse_list(list).expect_err("is wrong").to_string();
        let unknown = message("flip");
        assert!(unknown.contains("found flip") && unknown.contains("horizontal_flip"), "{unknown}");
        let setting = message("pad-crop:paddding=4");
        assert!(setting.contains("paddding"), "{setting}");
    }
}
