//! How a stored picture has to be turned to be seen: the orientation of EXIF.

use image::metadata::Orientation as Tag;

/// One of the eight orientations: mirrored or not, and turned by a multiple of 90 degrees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    /// Rows and columns are exchanged first.
    transposed: bool,
    /// Rows are then taken from the last to the first.
    flipped: bool,
    /// Columns are then taken from the last to the first.
    mirrored: bool,
}

impl From<Tag> for Orientation {
    fn from(tag: Tag) -> Self {
        let (transposed, flipped, mirrored) = match tag {
            Tag::NoTransforms => (false, false, false),
            Tag::FlipHorizontal => (false, false, true),
            Tag::Rotate180 => (false, true, true),
            Tag::FlipVertical => (false, true, false),
            Tag::Rotate90FlipH => (true, false, false),
            Tag::Rotate90 => (true, false, true),
            Tag::Rotate270FlipH => (true, true, true),
            Tag::Rotate270 => (true, true, false),
        };
        Self { transposed, flipped, mirrored }
    }
}

impl Orientation {
    /// The orientation in a block of EXIF data, from its TIFF header on; upright where it has none.
    pub fn of_exif(exif: &[u8]) -> Self {
        Tag::from_exif_chunk(exif).map_or_else(Self::default, Self::from)
    }

    /// `[height, width]` after turning, and, since turning twice is none, also before.
    pub fn turned(self, [height, width]: [usize; 2]) -> [usize; 2] {
        if self.transposed { [width, height] } else { [height, width] }
    }

    /// The part of the stored picture that a part of the seen one shows. Both are `[top, left, height, width]`;
    /// `seen` is the size `[height, width]` of the whole seen picture.
    pub fn stored_part(self, part: [f64; 4], seen: [usize; 2]) -> [f64; 4] {
        let [mut top, mut left, height, width] = part;
        if self.flipped {
            top = seen[0] as f64 - top - height;
        }
        if self.mirrored {
            left = seen[1] as f64 - left - width;
        }
        match self.transposed {
            true => [left, top, width, height],
            false => [top, left, height, width],
        }
    }

    /// Writes a stored picture of `[height, width]` to `seen` as it is to be seen, both `[row][column][channel]`.
    ///
    /// # Panics
    /// If a picture has not the size that the shape says.
    pub fn apply(
        self,
        stored: &[u8],
        [height, width]: [usize; 2],
        channels: usize,
        seen: &mut [u8],
    ) {
        assert_eq!(stored.len(), height * width * channels, "a picture {height} x {width}");
        assert_eq!(stored.len(), seen.len(), "as many pixels are seen as are stored");
        let [rows, columns] = self.turned([height, width]);
        for (y, row) in seen.chunks_exact_mut((columns * channels).max(1)).enumerate() {
            let y = if self.flipped { rows - 1 - y } else { y };
            for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
                let x = if self.mirrored { columns - 1 - x } else { x };
                let at = if self.transposed { x * width + y } else { y * width + x };
                pixel.copy_from_slice(&stored[at * channels..][..channels]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every orientation against what the crate that names them does.
    #[test]
    fn pictures_and_their_parts_are_turned_alike() {
        let (height, width) = (3usize, 5usize);
        let picture = image::RgbImage::from_fn(width as u32, height as u32, |x, y| {
            image::Rgb([x as u8, y as u8, 7])
        });
        for exif in 1..=8 {
            let tag = Tag::from_exif(exif).expect("one of eight");
            let orientation = Orientation::from(tag);
            let mut expected = image::DynamicImage::from(picture.clone());
            expected.apply_orientation(tag);
            let expected = expected.to_rgb8();
            let size = [expected.height() as usize, expected.width() as usize];
            assert_eq!(orientation.turned([height, width]), size);
            assert_eq!(orientation.turned(size), [height, width]);
            let mut seen = vec![0; 3 * height * width];
            orientation.apply(picture.as_raw(), [height, width], 3, &mut seen);
            assert_eq!(&seen, expected.as_raw(), "orientation {exif}");
            // Where each single pixel of the seen picture is stored.
            for (y, x) in (0..size[0]).flat_map(|y| (0..size[1]).map(move |x| (y, x))) {
                let [top, left, h, w] =
                    orientation.stored_part([y as f64, x as f64, 1.0, 1.0], size);
                assert_eq!((h, w), (1.0, 1.0));
                let found = picture.get_pixel(left as u32, top as u32);
                assert_eq!(found, expected.get_pixel(x as u32, y as u32), "orientation {exif}");
            }
        }
    }
}
