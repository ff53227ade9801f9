//! Cuts the centre out of an image.

use serde::{Deserialize, Serialize};

use super::settings::{Setting, Size};
use super::{Image, Transform};
use crate::error::Result;
use crate::rng::Rng;

/// The centre of every image (torchvision's `CenterCrop`). Of files that differ in size, those that are smaller get
/// a frame of zeros; where all images have one size and are smaller, the configuration is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CenterCrop {
    /// Pixels of both sides, or `[height, width]`. Without it: what the model expects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
}

impl CenterCrop {
    pub(super) fn validate(&self) -> Result<()> {
        self.size.map_or(Ok(()), |size| size.check(Setting("center_crop", "size")))
    }

    pub(super) fn size_after(&self, target: [usize; 2]) -> [usize; 2] {
        self.size.map_or(target, Size::square)
    }
}

impl Transform for CenterCrop {
    fn name(&self) -> &str {
        "center_crop"
    }

    fn apply(&self, image: &mut Image<'_>, _rng: &mut Rng) -> Result<()> {
        let [_, height, width] = image.target();
        center_crop(image, self.size_after([height, width]))
    }
}

/// Cuts the centre of `[height, width]` out of an image; what is larger than the image is filled with zeros.
///
/// # Errors
/// When the image cannot be decoded.
pub fn center_crop(image: &mut Image<'_>, [height, width]: [usize; 2]) -> Result<()> {
    let [channels, old_height, old_width] = image.shape();
    if [old_height, old_width] == [height, width] {
        return Ok(());
    }
    let rows = Overlap::new(old_height, height);
    let columns = Overlap::new(old_width, width);
    image.redraw([channels, height, width], |old, new| {
        let len = columns.len * channels;
        for y in 0..rows.len {
            let from = ((rows.old + y) * old_width + columns.old) * channels;
            let to = ((rows.new + y) * width + columns.new) * channels;
            new[to..to + len].copy_from_slice(&old[from..from + len]);
        }
    })
}

/// What the old and the new image share of one side.
struct Overlap {
    old: usize,
    new: usize,
    len: usize,
}

impl Overlap {
    fn new(old: usize, new: usize) -> Self {
        if new > old {
            return Self { old: 0, new: (new - old) / 2, len: old };
        }
        // Halves go to the even number, as Python rounds.
        let first = ((old - new) as f64 / 2.0).round_ties_even() as usize;
        Self { old: first, new: 0, len: new }
    }
}
