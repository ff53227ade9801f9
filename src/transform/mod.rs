//! Augmentation on the workers: the [`Transform`] trait, and one file a transform.
//!
//! A transform gets an [`Image`] and a stream of random numbers keyed by (seed, epoch, sample), so what it does never
//! depends on threads or on the order of the samples.

mod config;
mod horizontal_flip;
mod image;
mod pad_crop;
mod random_resized_crop;

pub(crate) use self::image::Effort;
pub use self::image::{Crop, Image, ImageMemory};
pub use config::TransformConfig;
pub use horizontal_flip::HorizontalFlip;
pub use pad_crop::PadCrop;
pub use random_resized_crop::RandomResizedCrop;

use crate::error::Result;
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
}
