//! RandAugment: a few operations of one magnitude, drawn from a fixed set.

use serde::{Deserialize, Serialize};

use super::affine::{Affine, Interpolation, affine, rotate};
use super::color::{adjust_brightness, adjust_contrast, adjust_saturation};
use super::settings::{Fill, Setting};
use super::tone::{adjust_sharpness, autocontrast, equalize, posterize, solarize};
use super::{Image, Transform};
use crate::error::Result;
use crate::rng::Rng;

/// Applies some operations of one magnitude, each drawn evenly from fourteen (Cubuk et al., 2019; with torchvision's
/// operations and magnitudes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// Operations an image gets, one after the other.
    pub operations: usize,
    /// How strong they are, from 0 to 30.
    pub magnitude: usize,
    /// How moved pixels are made.
    pub interpolation: Interpolation,
    /// What comes from outside of the image is painted with.
    pub fill: Fill,
}

impl Default for RandAugment {
    fn default() -> Self {
        let (interpolation, fill) = (Interpolation::default(), Fill::default());
        Self { operations: 2, magnitude: 9, interpolation, fill }
    }
}

/// Operations of one image at most: beyond some, nothing of the image is left.
const OPERATIONS_MAX: usize = 100;
/// Magnitudes that there are.
const BINS: usize = 31;

/// One operation, with its own measure of the magnitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    /// Nothing.
    Identity,
    /// Shear along x by the tangent of an angle, around the top left corner.
    ShearX(f64),
    /// Shear along y.
    ShearY(f64),
    /// Shift to the right, in whole pixels.
    TranslateX(f64),
    /// Shift down.
    TranslateY(f64),
    /// Degrees counter-clockwise.
    Rotate(f64),
    /// Factor less 1; see [`adjust_brightness`].
    Brightness(f64),
    /// Factor less 1; see [`adjust_saturation`].
    Color(f64),
    /// Factor less 1; see [`adjust_contrast`].
    Contrast(f64),
    /// Factor less 1; see [`adjust_sharpness`].
    Sharpness(f64),
    /// Bits that stay.
    Posterize(u32),
    /// Threshold in bytes.
    Solarize(f64),
    /// See [`autocontrast`].
    AutoContrast,
    /// See [`equalize`].
    Equalize,
}

/// How many operations there are.
const OPERATIONS: u64 = 14;

impl Operation {
    /// Operation `which` of fourteen at `magnitude` (0 to 30), for an image of `[height, width]`; `negative` turns the
    /// sign of those that have one.
    ///
    /// # Panics
    /// If there is no such operation.
    pub fn new(which: u64, magnitude: usize, [height, width]: [usize; 2], negative: bool) -> Self {
        let signed = |end: f64| {
            let value = f64::from(linspace(0.0, end as f32, magnitude));
            if negative { -value } else { value }
        };
        match which {
            0 => Self::Identity,
            1 => Self::ShearX(signed(0.3)),
            2 => Self::ShearY(signed(0.3)),
            3 => Self::TranslateX(signed(150.0 / 331.0 * width as f64).trunc()),
            4 => Self::TranslateY(signed(150.0 / 331.0 * height as f64).trunc()),
            5 => Self::Rotate(signed(30.0)),
            6 => Self::Brightness(signed(0.9)),
            7 => Self::Color(signed(0.9)),
            8 => Self::Contrast(signed(0.9)),
            9 => Self::Sharpness(signed(0.9)),
            10 => {
                let steps = (BINS - 1) as f32 / 4.0;
                Self::Posterize((8.0 - magnitude as f32 / steps).round_ties_even() as u32)
            }
            11 => Self::Solarize(255.0 * f64::from(linspace(1.0, 0.0, magnitude))),
            12 => Self::AutoContrast,
            13 => Self::Equalize,
            _ => panic!("operation {which} of {OPERATIONS}"),
        }
    }

    /// Applies it.
    ///
    /// # Errors
    /// When the image cannot be decoded, or has neither 1 channel nor 3.
    pub fn apply(
        self,
        image: &mut Image<'_>,
        interpolation: Interpolation,
        fill: Fill,
    ) -> Result<()> {
        let corner = |shear: [f64; 2]| Affine {
            shear: shear.map(|tangent| tangent.atan().to_degrees()),
            center: Some([0.0, 0.0]),
            ..Default::default()
        };
        let shift = |translate| Affine { translate, ..Default::default() };
        match self {
            Self::Identity => Ok(()),
            Self::ShearX(by) => affine(image, &corner([by, 0.0]), interpolation, fill),
            Self::ShearY(by) => affine(image, &corner([0.0, by]), interpolation, fill),
            Self::TranslateX(by) => affine(image, &shift([by, 0.0]), interpolation, fill),
            Self::TranslateY(by) => affine(image, &shift([0.0, by]), interpolation, fill),
            Self::Rotate(angle) => rotate(image, angle, interpolation, fill),
            Self::Brightness(by) => adjust_brightness(image, 1.0 + by),
            Self::Color(by) => adjust_saturation(image, 1.0 + by),
            Self::Contrast(by) => adjust_contrast(image, 1.0 + by),
            Self::Sharpness(by) => adjust_sharpness(image, 1.0 + by),
            Self::Posterize(bits) => posterize(image, bits),
            Self::Solarize(threshold) => solarize(image, threshold),
            Self::AutoContrast => autocontrast(image),
            Self::Equalize => equalize(image),
        }
    }
}

/// Number `i` of [`BINS`] numbers from `start` to `end`, as `torch.linspace` rounds them: from the nearer end, with one
/// rounding. Shifts
/// are cut to whole pixels, so the last bit matters.
fn linspace(start: f32, end: f32, i: usize) -> f32 {
    let step = (end - start) / (BINS - 1) as f32;
    match i {
        _ if i < BINS / 2 => step.mul_add(i as f32, start),
        _ => (-step).mul_add((BINS - 1 - i) as f32, end),
    }
}

impl RandAugment {
    pub(super) fn validate(&self) -> Result<()> {
        let setting = |name| Setting("rand_augment", name);
        let good = (1..=OPERATIONS_MAX).contains(&self.operations);
        setting("operations").expect(good, self.operations, format!("1 to {OPERATIONS_MAX}"))?;
        let good = self.magnitude < BINS;
        setting("magnitude").expect(good, self.magnitude, format!("0 to {}", BINS - 1))
    }

    /// One operation for an image of `[height, width]`.
    fn draw(&self, size: [usize; 2], rng: &mut Rng) -> Operation {
        let (which, negative) = (rng.below(OPERATIONS), rng.below(2) == 1);
        Operation::new(which, self.magnitude, size, negative)
    }
}

impl Transform for RandAugment {
    fn name(&self) -> &str {
        "rand_augment"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        let [_, height, width] = image.shape();
        for _ in 0..self.operations {
            self.draw([height, width], rng).apply(image, self.interpolation, self.fill)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_and_sign_is_as_likely() {
        let augment = RandAugment::default();
        let mut kinds = std::collections::BTreeMap::new();
        let mut signs = [0u32; 2];
        for key in 0..14_000 {
            let operation = augment.draw([100, 100], &mut Rng::keyed(&[key]));
            let kind = format!("{operation:?}").split('(').next().expect("a name").to_owned();
            *kinds.entry(kind).or_insert(0u32) += 1;
            if let Operation::Rotate(angle) = operation {
                signs[usize::from(angle < 0.0)] += 1;
                assert!((angle.abs() - 9.0).abs() < 1e-5, "{angle}");
            }
        }
        assert_eq!(kinds.len(), 14);
        crate::testing::assert_even(&kinds.into_values().collect::<Vec<_>>());
        crate::testing::assert_even(&signs);
    }
}
