//! Cuts a part of random size and shape out of an image and resizes it to what the model expects.

use serde::{Deserialize, Serialize};

use super::settings::Setting;
use super::{Crop, Image, Transform};
use crate::error::Result;
use crate::rng::Rng;

/// A random part of the image, resized to the model's input (Szegedy et al., 2014; torchvision's
/// `RandomResizedCrop`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomResizedCrop {
    /// Share of the image's area, from least to most.
    pub scale: [f64; 2],
    /// Width over height, from least to most; drawn evenly in its logarithm.
    pub ratio: [f64; 2],
}

impl Default for RandomResizedCrop {
    fn default() -> Self {
        Self { scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

/// Draws until a part fits into the image, as torchvision does; then the centre is taken.
const TRIES: usize = 10;

impl RandomResizedCrop {
    pub(super) fn validate(&self) -> Result<()> {
        let setting = |name| Setting("random_resized_crop", name);
        setting("scale").ordered(self.scale, [f64::MIN_POSITIVE, 1.0])?;
        setting("ratio").ordered(self.ratio, [f64::MIN_POSITIVE, f64::INFINITY])
    }

    /// The part of an image of `height` x `width`, in whole pixels.
    fn draw(&self, height: usize, width: usize, rng: &mut Rng) -> Crop {
        let between = |[low, high]: [f64; 2], rng: &mut Rng| low + (high - low) * rng.uniform();
        let area = (height * width) as f64;
        for _ in 0..TRIES {
            let part = area * between(self.scale, rng);
            let ratio = between(self.ratio.map(f64::ln), rng).exp();
            let (w, h) = ((part * ratio).sqrt().round(), (part / ratio).sqrt().round());
            if w >= 1.0 && h >= 1.0 && w <= width as f64 && h <= height as f64 {
                let top = rng.below((height - h as usize + 1) as u64) as f64;
                let left = rng.below((width - w as usize + 1) as u64) as f64;
                return Crop { top, left, height: h, width: w };
            }
        }
        self.centre(height as f64, width as f64)
    }

    /// The largest centre part whose shape is allowed.
    fn centre(&self, height: f64, width: f64) -> Crop {
        let [low, high] = self.ratio;
        let h = if width / height < low { (width / low).round() } else { height };
        let w = if width / height > high { (height * high).round() } else { width };
        let (h, w) = (h.clamp(1.0, height), w.clamp(1.0, width));
        Crop {
            top: ((height - h) / 2.0).floor(),
            left: ((width - w) / 2.0).floor(),
            height: h,
            width: w,
        }
    }
}

impl Transform for RandomResizedCrop {
    fn name(&self) -> &str {
        "random_resized_crop"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        let [_, height, width] = image.shape();
        let [_, target_height, target_width] = image.target();
        let crop = self.draw(height, width, rng);
        image.crop_resize(crop, [target_height, target_width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_inside_and_keep_to_their_bounds() {
        let transform = RandomResizedCrop::default();
        let mut shares = Vec::new();
        for key in 0..2000 {
            let mut rng = Rng::keyed(&[key]);
            let (height, width) = (1 + rng.below(300) as usize, 1 + rng.below(300) as usize);
            let crop = transform.draw(height, width, &mut rng);
            assert!(
                crop.top >= 0.0 && crop.top + crop.height <= height as f64,
                "{crop:?} of {height}"
            );
            assert!(
                crop.left >= 0.0 && crop.left + crop.width <= width as f64,
                "{crop:?} of {width}"
            );
            assert!(crop.height >= 1.0 && crop.width >= 1.0);
            if height > 100 && width > 100 && height < 2 * width && width < 2 * height {
                let ratio = crop.width / crop.height;
                assert!((0.72..1.39).contains(&ratio), "{crop:?}");
                shares.push(crop.width * crop.height / (height * width) as f64);
            }
        }
        // Even from 0.08 to 1 but for the large parts that do not fit.
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!((0.40..0.58).contains(&mean), "{mean}");
        assert!(shares.iter().all(|s| (0.07..=1.0).contains(s)));
    }

    #[test]
    fn what_never_fits_is_cut_from_the_centre() {
        let crop = RandomResizedCrop::default().draw(10, 1000, &mut Rng::keyed(&[1]));
        assert_eq!(crop, Crop { top: 0.0, left: 493.0, height: 10.0, width: 13.0 });
        let crop = RandomResizedCrop::default().draw(1000, 10, &mut Rng::keyed(&[1]));
        assert_eq!(crop, Crop { top: 493.0, left: 0.0, height: 13.0, width: 10.0 });
    }
}
