//! Augmentation on the workers: the [`Transform`] trait, and one file a transform.
//!
//! A transform gets an [`Image`] and a stream of random numbers keyed by (seed, epoch, sample), so what it does never
//! depends on threads or on the order of the samples.

mod config;
mod deferral;
mod horizontal_flip;
mod image;
mod pad_crop;
mod random_resized_crop;

pub use self::image::{Crop, Image, ImageMemory};
pub use config::TransformConfig;
pub use deferral::{Augment, Deferral, deferrable};
pub use horizontal_flip::HorizontalFlip;
pub use pad_crop::PadCrop;
pub use random_resized_crop::RandomResizedCrop;

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
