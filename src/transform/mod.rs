//! Augmentation on the workers: the [`Transform`] trait, and one file a transform.
//!
//! A transform gets an [`Image`] and a stream of random numbers keyed by (seed, epoch, sample), so what it does never
//! depends on threads or on the order of the samples. What it draws and what it then does are apart: [`functional`]
//! holds the latter.

mod affine;
mod blur;
mod center_crop;
mod color;
mod color_jitter;
mod config;
mod cutout;
mod deferral;
mod grayscale;
mod horizontal_flip;
mod image;
mod normalize;
mod pad_crop;
mod planes;
mod rand_augment;
mod random_erasing;
mod random_resized_crop;
mod resize;
mod rotation;
mod settings;
mod tone;
mod vertical_flip;

pub(crate) use self::image::Effort;
pub use self::image::{Crop, Image, ImageMemory};
pub use affine::Interpolation;
pub use blur::Blur;
pub use center_crop::CenterCrop;
pub use color_jitter::ColorJitter;
pub use config::{TransformConfig, check};
pub use cutout::Cutout;
pub use deferral::{Augment, Deferral, deferrable};
pub use grayscale::Grayscale;
pub use horizontal_flip::HorizontalFlip;
pub use normalize::Normalize;
pub use pad_crop::{PadCrop, PadMode};
pub use rand_augment::RandAugment;
pub use random_erasing::RandomErasing;
pub use random_resized_crop::RandomResizedCrop;
pub use resize::Resize;
pub use rotation::Rotation;
pub use settings::{Fill, Size, Spread};
pub use vertical_flip::VerticalFlip;

/// What transforms do once everything is drawn: functions of an image and explicit numbers, whose results are those of
/// torchvision's `transforms.v2.functional` on tensors of bytes (`tests/transforms.rs` says how closely).
pub mod functional {
    pub use super::affine::{Affine, Matrix, affine, rotate, warp};
    pub use super::blur::blur;
    pub use super::center_crop::center_crop;
    pub use super::color::{
        adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation, grayscale,
    };
    pub use super::cutout::{Patch, erase};
    pub use super::horizontal_flip::horizontal_flip;
    pub use super::pad_crop::pad_crop;
    pub use super::rand_augment::Operation;
    pub use super::resize::resize;
    pub use super::tone::{adjust_sharpness, autocontrast, equalize, posterize, solarize};
    pub use super::vertical_flip::vertical_flip;
}

use std::ops::Range;

use crate::error::Result;
use crate::framing::Framing;
use crate::rng::Rng;

/// Changes an image at random, or always in the same way.
pub trait Transform: Send + Sync {
    /// Its name, for errors and reports.
    fn name(&self) -> &str;

    /// Changes `image`. Everything random must come from `rng`.
    ///
    /// # Errors
    /// When the image cannot be decoded, or is not one that the transform can work on.
    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()>;

    /// How the device can do it instead; if at all, [`reframe`](Self::reframe) says what.
    fn deferral(&self) -> Deferral {
        Deferral::Never
    }

    /// Does to the framing of an image of `[height, width]` what [`apply`](Self::apply) does to the image, by the same
    /// numbers.
    ///
    /// # Panics
    /// If it cannot be deferred.
    fn reframe(&self, _framing: &mut Framing, _size: [usize; 2], _rng: &mut Rng) {
        panic!("{} cannot be deferred to the device", self.name());
    }
}

/// Runs the transforms at `places` of a list in their order, with what is drawn keyed by `[seed, epoch, sample]` and their place. `begin` is told
/// the name of each before it runs.
///
/// # Errors
/// That of the first transform that fails, under its name.
pub(crate) fn apply_all<'t>(
    transforms: &'t [Box<dyn Transform>],
    places: Range<usize>,
    image: &mut Image<'_>,
    [seed, epoch, sample]: [u64; 3],
    begin: impl Fn(&'t str),
) -> Result<()> {
    for place in places {
        let transform = &transforms[place];
        begin(transform.name());
        let mut rng = Rng::keyed(&[seed, epoch, sample, place as u64]);
        transform.apply(image, &mut rng).map_err(|e| e.within(transform.name()))?;
    }
    Ok(())
}
