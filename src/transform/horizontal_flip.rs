//! Mirrors an image left to right.

use serde::{Deserialize, Serialize};

use super::settings::Setting;
use super::{Deferral, Image, Transform};
use crate::error::Result;
use crate::framing::Framing;
use crate::rng::Rng;

/// Mirrors every image with a probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HorizontalFlip {
    /// From 0 (never) to 1 (always).
    pub probability: f64,
}

impl Default for HorizontalFlip {
    fn default() -> Self {
        Self { probability: 0.5 }
    }
}

impl HorizontalFlip {
    pub(super) fn validate(&self) -> Result<()> {
        Setting("horizontal_flip", "probability").probability(self.probability)
    }
}

impl Transform for HorizontalFlip {
    fn name(&self) -> &str {
        "horizontal_flip"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        if rng.uniform() < self.probability {
            image.mirror();
        }
        Ok(())
    }

    fn deferral(&self) -> Deferral {
        Deferral::Moves
    }

    fn reframe(&self, framing: &mut Framing, [_, width]: [usize; 2], rng: &mut Rng) {
        if rng.uniform() < self.probability {
            framing.mirror_columns(width);
        }
    }
}

/// Mirrors an image left to right.
///
/// # Errors
/// None; the other functions of its kind have some.
pub fn horizontal_flip(image: &mut Image<'_>) -> Result<()> {
    image.mirror();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::ImageMemory;

    fn flipped(probability: f64, rng: &mut Rng) -> Vec<u8> {
        let planes: Vec<u8> = (0..12).collect();
        let (mut memory, mut spare) = (ImageMemory::default(), Vec::new());
        let mut image = Image::raw([2, 2, 3], &planes, &mut memory);
        HorizontalFlip { probability }.apply(&mut image, rng).expect("raw");
        image.planes(&mut spare).expect("raw").to_vec()
    }

    #[test]
    fn rows_are_reversed_in_every_channel() {
        let mut rng = Rng::keyed(&[1]);
        assert_eq!(flipped(1.0, &mut rng), [2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]);
        assert_eq!(flipped(0.0, &mut rng), (0..12).collect::<Vec<u8>>());
    }

    #[test]
    fn half_of_the_images_are_flipped() {
        let mut rng = Rng::keyed(&[2]);
        let flips = (0..1000).filter(|_| flipped(0.5, &mut rng)[0] == 2).count();
        assert!((430..570).contains(&flips), "{flips}");
    }
}
