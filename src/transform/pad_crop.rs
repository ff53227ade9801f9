//! Pads an image with zeros and cuts a window of the old size out of it at random: a random shift.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::framing::Framing;
use crate::rng::Rng;
use crate::transform::{Deferral, Image, Transform};

/// Shifts every image by up to `padding` pixels each way (as in He et al., 2015, for CIFAR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PadCrop {
    /// Rows and columns of zeros on each side.
    pub padding: usize,
}

impl Default for PadCrop {
    fn default() -> Self {
        Self { padding: 4 }
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
        let shape @ [channels, height, width] = image.shape();
        let rows = overlap(top, self.padding, height);
        let columns = overlap(left, self.padding, width);
        image.redraw(shape, |old, new| {
            if columns.is_empty() {
                return; // Shifted out of sight: all zeros.
            }
            for row in rows {
                let from = (row + top - self.padding) * width + columns.start + left - self.padding;
                let to = row * width + columns.start;
                let len = columns.len() * channels;
                new[to * channels..][..len].copy_from_slice(&old[from * channels..][..len]);
            }
        })
    }

    fn deferral(&self) -> Deferral {
        Deferral::Pads(0)
    }

    fn reframe(&self, framing: &mut Framing, size: [usize; 2], rng: &mut Rng) {
        let choices = 2 * self.padding as u64 + 1;
        let [rows, columns] = [(); 2].map(|()| rng.below(choices) as i64 - self.padding as i64);
        framing.shift([rows, columns], size, 0);
    }
}

/// Which of the new rows (or columns) show old ones: new `i` shows old `i + start - padding`.
fn overlap(start: usize, padding: usize, len: usize) -> std::ops::Range<usize> {
    let first = padding.saturating_sub(start).min(len);
    let end = (len + padding).saturating_sub(start).min(len);
    first..end.max(first)
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
            PadCrop { padding }.apply(&mut image, &mut rng).expect("raw");
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
