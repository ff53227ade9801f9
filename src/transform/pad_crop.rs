//! Pads an image and cuts a window of the old size out of it at random: a random shift.

use serde::{Deserialize, Serialize};

use super::settings::{Fill, Setting};
use super::{Deferral, Image, Transform};
use crate::error::Result;
use crate::framing::Framing;
use crate::rng::Rng;

/// Shifts every image by up to `padding` pixels each way (as in He et al., 2015, for CIFAR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PadCrop {
    /// Rows and columns that are added on each side.
    pub padding: usize,
    /// What they show.
    pub mode: PadMode,
    /// What they are painted with where they show a constant.
    pub fill: Fill,
}

/// What lies outside of an image, in torchvision's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PadMode {
    /// One colour.
    #[default]
    Constant,
    /// The pixel of the edge, again and again.
    Edge,
    /// The image mirrored at the middle of its outermost pixels: `c b | a b c | b a`.
    Reflect,
    /// The image mirrored at its edge: `b a | a b c | c b`.
    Symmetric,
}

/// Padding at most: beyond it nothing of an image could be left.
const PADDING_MAX: usize = 16_384;

impl Default for PadCrop {
    fn default() -> Self {
        Self { padding: 4, mode: PadMode::Constant, fill: Fill::default() }
    }
}

impl PadCrop {
    pub(super) fn validate(&self) -> Result<()> {
        let good = self.padding <= PADDING_MAX;
        let expected = format!("at most {PADDING_MAX}");
        Setting("pad_crop", "padding").expect(good, self.padding, expected)
    }
}

impl Transform for PadCrop {
    fn name(&self) -> &str {
        "pad_crop"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        let choices = 2 * self.padding as u64 + 1;
        // Where the window begins in the padded image.
        let (top, left) = (rng.below(choices) as usize, rng.below(choices) as usize);
        pad_crop(image, [top, left], *self)
    }

    fn deferral(&self) -> Deferral {
        match self.mode {
            PadMode::Constant => Deferral::Pads(self.fill.word()),
            PadMode::Edge | PadMode::Reflect | PadMode::Symmetric => Deferral::Never,
        }
    }

    fn reframe(&self, framing: &mut Framing, size: [usize; 2], rng: &mut Rng) {
        let choices = 2 * self.padding as u64 + 1;
        let [rows, columns] = [(); 2].map(|()| rng.below(choices) as i64 - self.padding as i64);
        framing.shift([rows, columns], size, self.fill.word());
    }
}

/// Pads an image as `pad` says and cuts the window of its own size out that begins at `[top, left]` of the padded
/// image.
///
/// # Errors
/// When the image cannot be decoded.
pub fn pad_crop(image: &mut Image<'_>, [top, left]: [usize; 2], pad: PadCrop) -> Result<()> {
    let shape @ [channels, height, width] = image.shape();
    let PadCrop { padding, mode, fill } = pad;
    if (top, left) == (padding, padding) {
        return Ok(());
    }
    let columns = overlap(left, padding, width);
    image.redraw(shape, |old, new| {
        if mode == PadMode::Constant && fill != Fill::Same(0) {
            fill.paint(new, channels);
        }
        for (y, new) in new.chunks_exact_mut(width * channels).enumerate() {
            let Some(row) = mode.place(y + top, padding, height) else { continue };
            let old = &old[row * width * channels..][..width * channels];
            if !columns.is_empty() {
                let (from, to) = (columns.start + left - padding, columns.start);
                let len = columns.len() * channels;
                new[to * channels..][..len].copy_from_slice(&old[from * channels..][..len]);
            }
            for x in (0..columns.start).chain(columns.end..width) {
                let Some(column) = mode.place(x + left, padding, width) else { continue };
                new[x * channels..][..channels]
                    .copy_from_slice(&old[column * channels..][..channels]);
            }
        }
    })
}

/// Which of the new columns show old ones: new `i` shows old `i + start - padding`.
fn overlap(start: usize, padding: usize, len: usize) -> std::ops::Range<usize> {
    let first = padding.saturating_sub(start).min(len);
    let end = (len + padding).saturating_sub(start).min(len);
    first..end.max(first)
}

impl PadMode {
    /// The row (or column) of an image of `len` that row `at` of the padded image shows.
    fn place(self, at: usize, padding: usize, len: usize) -> Option<usize> {
        let place = at as isize - padding as isize;
        match self {
            PadMode::Constant => (0..len as isize).contains(&place).then_some(place as usize),
            PadMode::Edge => Some(place.clamp(0, len as isize - 1) as usize),
            PadMode::Reflect => Some(reflect(place, len)),
            PadMode::Symmetric => {
                let place = place.rem_euclid(2 * len as isize) as usize;
                Some(place.min(2 * len - 1 - place))
            }
        }
    }
}

/// The place in `0..len` that `place` shows when it is mirrored at the first and the last, as often as it takes.
pub(super) fn reflect(place: isize, len: usize) -> usize {
    if len == 1 {
        return 0;
    }
    let period = 2 * (len - 1);
    let place = place.rem_euclid(period as isize) as usize;
    place.min(period - place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::ImageMemory;

    /// Every shift of a small image, against the definition written out.
    #[test]
    fn every_shift_shows_what_the_padded_image_has_there() {
        let (height, width, padding) = (3usize, 4usize, 5usize);
        let old: Vec<u8> = (1..=24).collect();
        let mut seen = std::collections::HashSet::new();
        for key in 0..3000 {
            let (mut memory, mut spare) = (ImageMemory::default(), Vec::new());
            let mut rng = Rng::keyed(&[key]);
            let choices = 2 * padding as u64 + 1;
            let mut same = rng.clone();
            let (top, left) = (same.below(choices) as usize, same.below(choices) as usize);
            let mut image = Image::raw([2, height, width], &old, &mut memory);
            PadCrop { padding, ..Default::default() }.apply(&mut image, &mut rng).expect("raw");
            let padded = |c: usize, y: usize, x: usize| match (
                y.checked_sub(padding),
                x.checked_sub(padding),
            ) {
                (Some(y), Some(x)) if y < height && x < width => old[(c * height + y) * width + x],
                _ => 0,
            };
            let expected: Vec<u8> = (0..2 * height * width)
                .map(|i| (i / (height * width), i / width % height, i % width))
                .map(|(c, y, x)| padded(c, y + top, x + left))
                .collect();
            let bytes = image.planes(&mut spare).expect("raw");
            assert_eq!(bytes, expected, "shift {top}, {left}");
            seen.insert((top, left));
        }
        assert_eq!(seen.len(), 121);
    }
}
