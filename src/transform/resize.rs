//! Resizes an image.

use serde::{Deserialize, Serialize};

use super::settings::{Setting, Size};
use super::{Crop, Image, Transform};
use crate::decode::PIXELS_MAX;
use crate::error::{Error, Result};
use crate::rng::Rng;

/// Resizes every image (bilinear with support, as torchvision's `Resize` with antialiasing, and Pillow).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resize {
    /// Pixels of the shorter side, the other one following in proportion; or `[height, width]`, whatever becomes
    /// of the proportions. Without it: exactly what the model expects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
}

impl Resize {
    pub(super) fn validate(&self) -> Result<()> {
        self.size.map_or(Ok(()), |size| size.check(Setting("resize", "size")))
    }

    /// Whether the new size depends on the old one.
    pub(super) fn is_in_proportion(&self) -> bool {
        matches!(self.size, Some(Size::Side(_)))
    }

    /// `[height, width]` after it, of an image of `[height, width]`.
    pub(super) fn size_after(&self, [height, width]: [usize; 2], target: [usize; 2]) -> [usize; 2] {
        // The longer side is cut to whole pixels, as torchvision does.
        let longer = |side: usize, long: usize, short: usize| (side * long / short.max(1)).max(1);
        match self.size {
            None => target,
            Some(Size::Exact(size)) => size,
            Some(Size::Side(side)) if height <= width => [side, longer(side, width, height)],
            Some(Size::Side(side)) => [longer(side, height, width), side],
        }
    }
}

impl Transform for Resize {
    fn name(&self) -> &str {
        "resize"
    }

    fn apply(&self, image: &mut Image<'_>, _rng: &mut Rng) -> Result<()> {
        let ([_, height, width], [_, target_h, target_w]) = (image.shape(), image.target());
        resize(image, self.size_after([height, width], [target_h, target_w]))
    }
}

/// Resizes an image to `[height, width]`.
///
/// # Errors
/// When the image cannot be decoded, or would have more than [`PIXELS_MAX`] pixels.
pub fn resize(image: &mut Image<'_>, [height, width]: [usize; 2]) -> Result<()> {
    let [_, old_height, old_width] = image.shape();
    if [old_height, old_width] == [height, width] {
        return Ok(());
    }
    if (height as u64).saturating_mul(width as u64) > PIXELS_MAX {
        let message = format!(
            "an image of {old_height} x {old_width} would become {height} x {width}, expected at most {PIXELS_MAX} \
             pixels"
        );
        return Err(Error::data("size", message).hint("size=[height, width]"));
    }
    let crop = Crop { top: 0.0, left: 0.0, height: old_height as f64, width: old_width as f64 };
    image.crop_resize(crop, [height, width])
}
