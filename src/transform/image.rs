//! An image on its way from a source to a slot: decoded as late as possible, cropped before it is resized.

use fast_image_resize as fir;

use crate::decode;
use crate::error::{Error, Result};

/// A worker's memory for images, kept from sample to sample.
#[derive(Default)]
pub struct ImageMemory {
    pixels: Vec<u8>,
    spare: Vec<u8>,
    resizer: fir::Resizer,
}

/// A part of an image, in pixels; it may cut through pixels, as the boxes of a resize do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    /// First row.
    pub top: f64,
    /// First column.
    pub left: f64,
    /// Rows.
    pub height: f64,
    /// Columns.
    pub width: f64,
}

/// Where the pixels are.
enum State<'a> {
    /// Still in the bytes of an image file.
    Encoded(&'a [u8]),
    /// In the source's own bytes, channel after channel.
    Planar(&'a [u8]),
    /// In the worker's memory, as `[row][column][channel]`.
    Pixels,
}

/// An image of bytes. Transforms see and change its pixels as `[row][column][channel]`; what no transform touches is
/// written into the slot as it came.
pub struct Image<'a> {
    shape: [usize; 3],
    target: [usize; 3],
    state: State<'a>,
    memory: &'a mut ImageMemory,
}

impl<'a> Image<'a> {
    /// An image of `shape` `[channels, height, width]` whose bytes are `planes`, channel after channel.
    ///
    /// # Panics
    /// If `planes` has another length than the shape says.
    pub fn raw(shape: [usize; 3], planes: &'a [u8], memory: &'a mut ImageMemory) -> Self {
        assert_eq!(planes.len(), shape.iter().product::<usize>(), "an image of shape {shape:?}");
        Self { shape, target: shape, state: State::Planar(planes), memory }
    }

    /// An image file that is to end as `target` `[channels, height, width]` with 1 channel or 3.
    ///
    /// # Errors
    /// When its head cannot be read.
    pub fn encoded(
        bytes: &'a [u8],
        target: [usize; 3],
        memory: &'a mut ImageMemory,
    ) -> Result<Self> {
        let header = decode::header(bytes)?;
        let shape = [target[0], header.height, header.width];
        Ok(Self { shape, target, state: State::Encoded(bytes), memory })
    }

    /// `[channels, height, width]` now.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// `[channels, height, width]` that the model expects. What leaves the transforms in another size is fitted to it.
    pub fn target(&self) -> [usize; 3] {
        self.target
    }

    /// The pixels, as `[row][column][channel]`; decodes what is still encoded.
    ///
    /// # Errors
    /// When the image cannot be decoded.
    pub fn pixels(&mut self) -> Result<&[u8]> {
        self.pixels_mut().map(|pixels| &*pixels)
    }

    /// The pixels, to be changed in place.
    ///
    /// # Errors
    /// When the image cannot be decoded.
    pub fn pixels_mut(&mut self) -> Result<&mut [u8]> {
        let [channels, height, width] = self.shape;
        match self.state {
            State::Pixels => {}
            State::Encoded(bytes) => decode::decode(bytes, channels, &mut self.memory.pixels)?,
            State::Planar(planes) => interleave(planes, channels, &mut self.memory.pixels),
        }
        self.state = State::Pixels;
        let (found, expected) = (self.memory.pixels.len(), channels * height * width);
        if found != expected {
            let message = format!("found {found} bytes of pixels, expected {expected}");
            return Err(Error::data("image", message));
        }
        Ok(&mut self.memory.pixels)
    }

    /// Replaces the image by one of `shape`, which `draw` makes from the old one: `draw(old, new)`, where `new` is
    /// all zeros. Needs no new memory once a worker is warm.
    ///
    /// # Errors
    /// When the image cannot be decoded.
    pub fn redraw(&mut self, shape: [usize; 3], draw: impl FnOnce(&[u8], &mut [u8])) -> Result<()> {
        self.pixels_mut()?;
        let ImageMemory { pixels, spare, .. } = &mut *self.memory;
        spare.clear();
        spare.resize(shape.iter().product(), 0);
        draw(pixels, spare);
        std::mem::swap(pixels, spare);
        self.shape = shape;
        Ok(())
    }

    /// Replaces the image by a part of it, resized to `size` `[height, width]` (bilinear with support, as Pillow and
    /// torchvision with antialiasing do).
    ///
    /// # Errors
    /// When the image cannot be decoded, or the crop is empty or not inside of it.
    pub fn crop_resize(&mut self, crop: Crop, [height, width]: [usize; 2]) -> Result<()> {
        let [channels, old_height, old_width] = self.shape;
        let pixel = match channels {
            1 => fir::PixelType::U8,
            2 => fir::PixelType::U8x2,
            3 => fir::PixelType::U8x3,
            4 => fir::PixelType::U8x4,
            _ => {
                return Err(Error::data(
                    "image",
                    format!("found {channels} channels, expected 1 to 4"),
                ));
            }
        };
        self.pixels_mut()?;
        let ImageMemory { pixels, spare, resizer } = &mut *self.memory;
        spare.clear();
        spare.resize(channels * height * width, 0);
        let wrong = |what: String| Error::data("image", what);
        let old = fir::images::ImageRef::new(old_width as u32, old_height as u32, pixels, pixel)
            .map_err(|e| wrong(format!("cannot be resized: {e}")))?;
        let mut new = fir::images::Image::from_slice_u8(width as u32, height as u32, spare, pixel)
            .map_err(|e| wrong(format!("cannot be resized: {e}")))?;
        let options = fir::ResizeOptions::new()
            .crop(crop.left, crop.top, crop.width, crop.height)
            .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear))
            .use_alpha(false);
        resizer
            .resize(&old, &mut new, Some(&options))
            .map_err(|e| wrong(format!("{crop:?} of {old_height} x {old_width}: {e}")))?;
        std::mem::swap(pixels, spare);
        self.shape = [channels, height, width];
        Ok(())
    }

    /// Brings an image of another size to the [`target`](Self::target) as evaluation commonly does: its largest
    /// centre part of that shape, less an eighth, resized.
    ///
    /// # Errors
    /// When the image cannot be decoded.
    pub fn fit(&mut self) -> Result<()> {
        let [_, height, width] = self.shape;
        let [_, target_height, target_width] = self.target;
        if (height, width) == (target_height, target_width) {
            return Ok(());
        }
        let (h, w) = (height as f64, width as f64);
        let scale = (h / target_height as f64).min(w / target_width as f64) * CENTRE_SHARE;
        let (part_h, part_w) = (scale * target_height as f64, scale * target_width as f64);
        let crop = Crop {
            top: (h - part_h) / 2.0,
            left: (w - part_w) / 2.0,
            height: part_h,
            width: part_w,
        };
        self.crop_resize(crop, [target_height, target_width])
    }

    /// Writes the bytes as they go into a slot, channel after channel.
    ///
    /// # Errors
    /// When the image cannot be decoded.
    pub(crate) fn write_planes(&mut self, planes: &mut Vec<u8>) -> Result<()> {
        let channels = self.shape[0];
        match self.state {
            State::Planar(bytes) => {
                planes.clear();
                planes.extend_from_slice(bytes);
            }
            _ => deinterleave(self.pixels()?, channels, planes),
        }
        Ok(())
    }

    /// The bytes as they go into a slot; `planes` is memory for them where they must be made.
    ///
    /// # Errors
    /// When the image cannot be decoded.
    pub(crate) fn planes<'b>(&'b mut self, planes: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        match self.state {
            State::Planar(bytes) => Ok(bytes),
            _ if self.shape[0] == 1 => self.pixels(),
            _ => {
                self.write_planes(planes)?;
                Ok(planes)
            }
        }
    }
}

/// Side of the part that evaluation looks at: 224 of 256 pixels (Krizhevsky et al., 2012).
const CENTRE_SHARE: f64 = 224.0 / 256.0;

/// Channel after channel to pixel after pixel.
fn interleave(planes: &[u8], channels: usize, pixels: &mut Vec<u8>) {
    pixels.clear();
    let plane = planes.len() / channels;
    if channels == 1 {
        pixels.extend_from_slice(planes);
        return;
    }
    pixels.resize(planes.len(), 0);
    for (c, plane) in planes.chunks_exact(plane).enumerate() {
        for (pixel, &byte) in pixels.chunks_exact_mut(channels).zip(plane) {
            pixel[c] = byte;
        }
    }
}

/// Pixel after pixel to channel after channel.
fn deinterleave(pixels: &[u8], channels: usize, planes: &mut Vec<u8>) {
    planes.resize(pixels.len(), 0);
    let len = pixels.len() / channels;
    for (c, plane) in planes.chunks_exact_mut(len.max(1)).enumerate() {
        for (pixel, byte) in pixels.chunks_exact(channels).zip(plane) {
            *byte = pixel[c];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_transform_touches_goes_as_it_came() {
        let planes: Vec<u8> = (0..24).collect();
        let (mut memory, mut spare) = (ImageMemory::default(), vec![9; 3]);
        let mut image = Image::raw([2, 3, 4], &planes, &mut memory);
        assert_eq!(image.planes(&mut spare).expect("raw").as_ptr(), planes.as_ptr());
        let pixels = image.pixels().expect("raw").to_vec();
        assert_eq!(pixels[..6], [0, 12, 1, 13, 2, 14]);
        assert_eq!(image.planes(&mut spare).expect("raw"), planes);
    }

    #[test]
    fn an_image_of_another_size_is_fitted() {
        // A white centre in a dark frame: the frame is what fitting cuts away.
        let mut picture = image::RgbImage::from_pixel(64, 48, image::Rgb([0, 0, 0]));
        for (x, y) in (8..56).flat_map(|x| (3..45).map(move |y| (x, y))) {
            picture.put_pixel(x, y, image::Rgb([255, 255, 255]));
        }
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encodes");
        let (mut memory, mut spare) = (ImageMemory::default(), Vec::new());
        let mut image = Image::encoded(bytes.get_ref(), [3, 21, 21], &mut memory).expect("a PNG");
        assert_eq!(image.shape(), [3, 48, 64]);
        image.fit().expect("fits");
        let planes = image.planes(&mut spare).expect("decoded");
        assert_eq!(planes, vec![255; 3 * 21 * 21]);
    }
}
