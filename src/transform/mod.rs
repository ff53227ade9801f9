//! Augmentation on the workers: the [`Transform`] trait, and one file a transform.
//!
//! A transform gets a worker's own copy of an image and a stream of random numbers keyed by (seed, epoch,
//! sample), so what it does never depends on threads or on the order of the samples.

mod horizontal_flip;
mod pad_crop;

pub use horizontal_flip::HorizontalFlip;
pub use pad_crop::PadCrop;

use crate::rng::Rng;

/// Changes an image at random, or always in the same way.
pub trait Transform: Send + Sync {
    /// Its name, for errors and reports.
    fn name(&self) -> &str;

    /// Changes `image`. Everything random must come from `rng`.
    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng);
}

/// An image of bytes, channel after channel, in a worker's memory.
pub struct Image<'a> {
    shape: [usize; 3],
    bytes: &'a mut Vec<u8>,
    spare: &'a mut Vec<u8>,
}

impl<'a> Image<'a> {
    /// An image of `shape` `[channels, height, width]` in `bytes`; `spare` is memory to work in.
    ///
    /// # Panics
    /// If `bytes` has another length than the shape says.
    pub fn new(shape: [usize; 3], bytes: &'a mut Vec<u8>, spare: &'a mut Vec<u8>) -> Self {
        assert_eq!(bytes.len(), shape.iter().product::<usize>(), "an image of shape {shape:?}");
        Self { shape, bytes, spare }
    }

    /// `[channels, height, width]`.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The bytes, as `[channel][row][column]`.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The bytes, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// Replaces the image by one of `shape`, which `draw` makes from the old one: `draw(old, new)`, where
    /// `new` is all zeros. Needs no memory once a worker is warm.
    pub fn redraw(&mut self, shape: [usize; 3], draw: impl FnOnce(&[u8], &mut [u8])) {
        self.spare.clear();
        self.spare.resize(shape.iter().product(), 0);
        draw(self.bytes, self.spare);
        std::mem::swap(self.bytes, self.spare);
        self.shape = shape;
    }
}
