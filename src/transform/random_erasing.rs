//! Paints over a box of random size and shape.

use serde::{Deserialize, Serialize};

use super::cutout::{Patch, erase};
use super::settings::{Fill, Setting};
use super::{Deferral, Image, Transform};
use crate::error::Result;
use crate::framing::Framing;
use crate::rng::Rng;

/// Paints over a box of random size, shape and place (Zhong et al., 2017; torchvision's `RandomErasing`). The fill is in
/// bytes, before normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomErasing {
    /// From 0 (never) to 1 (always).
    pub probability: f64,
    /// Share of the image's area, from least to most.
    pub scale: [f64; 2],
    /// Height over width, from least to most; drawn evenly in its logarithm.
    pub ratio: [f64; 2],
    /// What the box is painted with.
    pub fill: Fill,
}

impl Default for RandomErasing {
    fn default() -> Self {
        Self { probability: 0.5, scale: [0.02, 0.33], ratio: [0.3, 3.3], fill: Fill::default() }
    }
}

/// Draws until a box fits into the image, as torchvision does; then the image stays as it is.
const TRIES: usize = 10;

impl RandomErasing {
    pub(super) fn validate(&self) -> Result<()> {
        let setting = |name| Setting("random_erasing", name);
        setting("probability").probability(self.probability)?;
        setting("scale").ordered(self.scale, [0.0, 1.0])?;
        setting("ratio").ordered(self.ratio, [f64::MIN_POSITIVE, f64::INFINITY])
    }

    /// The box in an image of `height` x `width`.
    fn draw(&self, height: usize, width: usize, rng: &mut Rng) -> Option<Patch> {
        let area = (height * width) as f64;
        for _ in 0..TRIES {
            let [low, high] = self.scale;
            let part = area * rng.range(low, high);
            let [low, high] = self.ratio.map(f64::ln);
            let ratio = rng.range(low, high).exp();
            let (h, w) = ((part * ratio).sqrt(), (part / ratio).sqrt());
            let (h, w) = (h.round_ties_even() as usize, w.round_ties_even() as usize);
            if h < height && w < width {
                let top = rng.below((height - h + 1) as u64) as usize;
                let left = rng.below((width - w + 1) as u64) as usize;
                return Some(Patch { top, left, height: h, width: w });
            }
        }
        None
    }
}

impl Transform for RandomErasing {
    fn name(&self) -> &str {
        "random_erasing"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        if rng.uniform() >= self.probability {
            return Ok(());
        }
        let [_, height, width] = image.shape();
        match self.draw(height, width, rng) {
            Some(patch) => erase(image, patch, self.fill),
            None => Ok(()),
        }
    }

    fn deferral(&self) -> Deferral {
        Deferral::Covers
    }

    fn reframe(&self, framing: &mut Framing, [height, width]: [usize; 2], rng: &mut Rng) {
        if rng.uniform() < self.probability
            && let Some(patch) = self.draw(height, width, rng)
        {
            patch.cover(framing, self.fill);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_keep_to_their_bounds() {
        // Wider ratios would not always fit, which makes large boxes rarer.
        let erasing = RandomErasing { ratio: [0.5, 2.0], ..Default::default() };
        let (mut shares, mut ratios) = ([0u32; 8], [0u32; 8]);
        for key in 0..8000 {
            let patch =
                erasing.draw(500, 500, &mut Rng::keyed(&[key])).expect("fits nearly always");
            assert!(patch.top + patch.height <= 500 && patch.left + patch.width <= 500);
            let (h, w) = (patch.height as f64, patch.width as f64);
            let share = (h * w / 250_000.0 - 0.02) / 0.31;
            assert!((-0.01..1.01).contains(&share), "{patch:?}");
            shares[(share * 8.0).clamp(0.0, 7.0) as usize] += 1;
            let ratio = (h / w / 0.5).ln() / 4f64.ln();
            assert!((-0.02..1.02).contains(&ratio), "{patch:?}");
            ratios[(ratio * 8.0).clamp(0.0, 7.0) as usize] += 1;
        }
        crate::testing::assert_even(&shares);
        crate::testing::assert_even(&ratios);
    }

    #[test]
    fn what_never_fits_is_left() {
        let erasing = RandomErasing { scale: [1.0, 1.0], ratio: [1.0, 1.0], ..Default::default() };
        assert_eq!(erasing.draw(8, 8, &mut Rng::keyed(&[1])), None);
    }
}
