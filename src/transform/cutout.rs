//! Paints over a box of a given size.

use serde::{Deserialize, Serialize};

use super::settings::{Fill, Setting, Size};
use super::{Deferral, Image, Transform};
use crate::error::Result;
use crate::framing::Framing;
use crate::rng::Rng;

/// Paints over a box whose centre lies anywhere in the image; what reaches beyond the edge is cut off (DeVries and
/// Taylor, 2017). The fill is in bytes before normalisation: 0 is black, and the mean of the data what the paper uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cutout {
    /// From 0 (never) to 1 (always).
    pub probability: f64,
    /// Pixels of both sides, or `[height, width]`.
    pub size: Size,
    /// What the box is painted with.
    pub fill: Fill,
}

impl Default for Cutout {
    fn default() -> Self {
        Self { probability: 1.0, size: Size::Side(8), fill: Fill::default() }
    }
}

/// A box of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Patch {
    /// Covers this box for the device to see.
    pub(super) fn cover(self, framing: &mut Framing, fill: Fill) {
        let Self { top, left, height, width } = self;
        framing.cover_by(top..top + height, left..left + width, fill.word());
    }
}

impl Cutout {
    pub(super) fn validate(&self) -> Result<()> {
        Setting("cutout", "probability").probability(self.probability)?;
        self.size.check(Setting("cutout", "size"))
    }

    /// The part of the box that lies in an image of `height` x `width`.
    fn draw(&self, height: usize, width: usize, rng: &mut Rng) -> Patch {
        let mut side = |size: usize, len: usize| {
            let centre = rng.below(len as u64) as usize;
            let (start, end) = (centre.saturating_sub(size / 2), centre + size.div_ceil(2));
            (start, end.min(len) - start)
        };
        let [size_h, size_w] = self.size.square();
        let (top, height) = side(size_h, height);
        let (left, width) = side(size_w, width);
        Patch { top, left, height, width }
    }
}

impl Transform for Cutout {
    fn name(&self) -> &str {
        "cutout"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        if rng.uniform() >= self.probability {
            return Ok(());
        }
        let [_, height, width] = image.shape();
        erase(image, self.draw(height, width, rng), self.fill)
    }

    fn deferral(&self) -> Deferral {
        Deferral::Covers
    }

    fn reframe(&self, framing: &mut Framing, [height, width]: [usize; 2], rng: &mut Rng) {
        if rng.uniform() < self.probability {
            self.draw(height, width, rng).cover(framing, self.fill);
        }
    }
}

/// Paints over a box.
///
/// # Errors
/// When the image cannot be decoded.
///
/// # Panics
/// If the box reaches beyond the image.
pub fn erase(image: &mut Image<'_>, patch: Patch, fill: Fill) -> Result<()> {
    let [channels, _, width] = image.shape();
    let pixels = image.pixels_mut()?;
    for y in patch.top..patch.top + patch.height {
        let start = (y * width + patch.left) * channels;
        fill.paint(&mut pixels[start..start + patch.width * channels], channels);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_lie_in_the_image_around_an_even_centre() {
        let cutout = Cutout { size: Size::Exact([4, 7]), ..Default::default() };
        let (mut rows, mut columns) = ([0u32; 7], [0u32; 10]);
        for key in 0..8000 {
            let patch = cutout.draw(10, 16, &mut Rng::keyed(&[key]));
            assert!(patch.top + patch.height <= 10 && patch.left + patch.width <= 16, "{patch:?}");
            assert!((1..=4).contains(&patch.height) && (1..=7).contains(&patch.width), "{patch:?}");
            if patch.height == 4 {
                rows[patch.top] += 1;
            }
            if patch.width == 7 {
                columns[patch.left] += 1;
            }
        }
        // Boxes that are whole: their centres are rows 2 to 8, columns 3 to 12.
        crate::testing::assert_even(&rows);
        crate::testing::assert_even(&columns);
        assert!(rows.iter().sum::<u32>() < 8000 * 3 / 4, "centres lie near the edge as well");
    }
}
