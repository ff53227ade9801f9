//! Turns images grey.

use serde::{Deserialize, Serialize};

use super::color::grayscale;
use super::settings::Setting;
use super::{Image, Transform};
use crate::error::Result;
use crate::rng::Rng;

/// Turns every image grey with a probability, keeping its channels (torchvision's `RandomGrayscale`; with a
/// probability of 1, `Grayscale`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grayscale {
    /// From 0 (never) to 1 (always).
    pub probability: f64,
}

impl Default for Grayscale {
    fn default() -> Self {
        Self { probability: 0.1 }
    }
}

impl Grayscale {
    pub(super) fn validate(&self) -> Result<()> {
        Setting("grayscale", "probability").probability(self.probability)
    }
}

impl Transform for Grayscale {
    fn name(&self) -> &str {
        "grayscale"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        if rng.uniform() >= self.probability {
            return Ok(());
        }
        grayscale(image)
    }
}
