//! Turns an image by a random angle.

use serde::{Deserialize, Serialize};

use super::affine::{Interpolation, rotate};
use super::settings::{Fill, Setting, Spread};
use super::{Image, Transform};
use crate::error::Result;
use crate::rng::Rng;

/// Turns every image around its centre by an angle drawn evenly (torchvision's `RandomRotation`); the size stays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// Degrees each way, or `[least, most]`; counter-clockwise.
    pub degrees: Spread,
    /// How pixels are made.
    pub interpolation: Interpolation,
    /// What the corners are painted with.
    pub fill: Fill,
}

impl Default for Rotation {
    fn default() -> Self {
        let (interpolation, fill) = (Interpolation::default(), Fill::default());
        Self { degrees: Spread::Around(15.0), interpolation, fill }
    }
}

impl Rotation {
    pub(super) fn validate(&self) -> Result<()> {
        self.degrees.check(Setting("rotation", "degrees"), [-360.0, 360.0])
    }

    /// The angle of one image.
    fn draw(&self, rng: &mut Rng) -> f64 {
        let [low, high] = self.degrees.bounds(0.0);
        rng.range(low, high)
    }
}

impl Transform for Rotation {
    fn name(&self) -> &str {
        "rotation"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        rotate(image, self.draw(rng), self.interpolation, self.fill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_are_even_over_their_range() {
        let mut counts = [0u32; 10];
        for key in 0..10_000 {
            let angle = Rotation::default().draw(&mut Rng::keyed(&[key]));
            assert!((-15.0..15.0).contains(&angle), "{angle}");
            counts[((angle + 15.0) / 3.0) as usize] += 1;
        }
        crate::testing::assert_even(&counts);
    }
}
