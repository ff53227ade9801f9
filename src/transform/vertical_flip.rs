//! Mirrors an image top to bottom.

use serde::{Deserialize, Serialize};

use super::settings::Setting;
use super::{Deferral, Image, Transform, functional};
use crate::error::Result;
use crate::framing::Framing;
use crate::rng::Rng;

/// Turns every image upside down with a probability, without changing left and right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerticalFlip {
    /// From 0 (never) to 1 (always).
    pub probability: f64,
}

impl Default for VerticalFlip {
    fn default() -> Self {
        Self { probability: 0.5 }
    }
}

impl VerticalFlip {
    pub(super) fn validate(&self) -> Result<()> {
        Setting("vertical_flip", "probability").probability(self.probability)
    }
}

impl Transform for VerticalFlip {
    fn name(&self) -> &str {
        "vertical_flip"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        if rng.uniform() >= self.probability {
            return Ok(());
        }
        functional::vertical_flip(image)
    }

    fn deferral(&self) -> Deferral {
        Deferral::Moves
    }

    fn reframe(&self, framing: &mut Framing, [height, _]: [usize; 2], rng: &mut Rng) {
        if rng.uniform() < self.probability {
            framing.mirror_rows(height);
        }
    }
}

/// Mirrors an image top to bottom.
///
/// # Errors
/// When the image cannot be decoded.
pub fn vertical_flip(image: &mut Image<'_>) -> Result<()> {
    let [channels, height, width] = image.shape();
    let row = channels * width;
    let pixels = image.pixels_mut()?;
    for y in 0..height / 2 {
        let (top, bottom) = pixels.split_at_mut((height - 1 - y) * row);
        top[y * row..(y + 1) * row].swap_with_slice(&mut bottom[..row]);
    }
    Ok(())
}
