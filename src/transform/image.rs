//! An image on its way from a source to a slot: decoded as late as possible, cropped before it is resized.

use std::time::Duration;

use fast_image_resize as fir;

use crate::batch::WriteOnly;
use crate::clock::Stamp;
use crate::decode::{self, DecodeSize, Method, Orientation, Reduction};
use crate::error::{Error, Result};
use crate::transform::planes::{self, Split};

/// A worker's memory for images, kept from sample to sample.
#[derive(Default)]
pub struct ImageMemory {
    /// The image, exactly as long as its shape says once it is decoded.
    pixels: Vec<u8>,
    /// What the image was before, or what was decoded of a file; at least as long as it must be.
    spare: Vec<u8>,
    /// A resized image that has still to be turned.
    stored: Vec<u8>,
    resizer: fir::Resizer,
    effort: Effort,
}

/// What a worker did with its images.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effort {
    /// Time spent decoding.
    pub decode: Duration,
    /// Bytes written to memory: decoded, resized, split.
    pub bytes: u64,
}

impl ImageMemory {
    /// What was done since this was last asked.
    pub(crate) fn take_effort(&mut self) -> Effort {
        std::mem::take(&mut self.effort)
    }

    /// Decodes rows into `spare`, as [`decode::decode_rows`] does, and counts that.
    fn decode_rows(
        &mut self,
        bytes: &[u8],
        header: &decode::Header,
        channels: usize,
        method: Method,
        rows: usize,
    ) -> Result<usize> {
        let begun = Stamp::now();
        let rows = decode::decode_rows(bytes, header, channels, method, rows, &mut self.spare)?;
        self.effort.decode += begun.elapsed();
        self.effort.bytes += (rows * header.decoded(method)[1] * channels) as u64;
        Ok(rows)
    }
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
    Encoded(&'a [u8], decode::Header, DecodeSize),
    /// In the source's own bytes, channel after channel.
    Planar(&'a [u8]),
    /// Somewhere else, as `[row][column][channel]`.
    Lent(&'a [u8]),
    /// In the worker's memory, as `[row][column][channel]`.
    Pixels,
}

/// An image of bytes. Transforms see and change its pixels as `[row][column][channel]`; what no transform touches is
/// written into the slot as it came.
pub struct Image<'a> {
    shape: [usize; 3],
    target: [usize; 3],
    state: State<'a>,
    /// Whether left and right are still to be exchanged, which is free when the image is written.
    mirrored: bool,
    memory: &'a mut ImageMemory,
}

impl<'a> Image<'a> {
    /// An image of `shape` `[channels, height, width]` whose bytes are `planes`, channel after channel.
    ///
    /// # Panics
    /// If `planes` has another length than the shape says.
    pub fn raw(shape: [usize; 3], planes: &'a [u8], memory: &'a mut ImageMemory) -> Self {
        assert_eq!(planes.len(), shape.iter().product::<usize>(), "an image of shape {shape:?}");
        Self { shape, target: shape, state: State::Planar(planes), mirrored: false, memory }
    }

    /// An image that is decoded already: `pixels` are its `[row][column][channel]`, `size` its `[height, width]`. They are
    /// only copied where a transform changes them in place.
    ///
    /// # Panics
    /// If `pixels` has another length than that.
    pub fn decoded(
        pixels: &'a [u8],
        [height, width]: [usize; 2],
        target: [usize; 3],
        memory: &'a mut ImageMemory,
    ) -> Self {
        let shape = [target[0], height, width];
        assert_eq!(pixels.len(), shape.iter().product::<usize>(), "an image of shape {shape:?}");
        Self { shape, target, state: State::Lent(pixels), mirrored: false, memory }
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
        memory.effort.bytes += bytes.len() as u64;
        let state = State::Encoded(bytes, header, DecodeSize::Full);
        Ok(Self { shape, target, state, mirrored: false, memory })
    }

    /// The same image; if it is still encoded, it may be decoded at this size.
    pub fn decoded_at(mut self, new: DecodeSize) -> Self {
        if let State::Encoded(_, _, size) = &mut self.state {
            *size = new;
        }
        self
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
            State::Encoded(bytes, header, _) => {
                let (stored, whole) = (header.stored(), Method::default());
                self.memory.decode_rows(bytes, &header, channels, whole, stored[0])?;
                let ImageMemory { pixels, spare, .. } = &mut *self.memory;
                let len = channels * height * width;
                if header.orientation == Orientation::default() {
                    std::mem::swap(pixels, spare);
                    pixels.truncate(len);
                } else {
                    pixels.resize(len, 0);
                    header.orientation.apply(&spare[..len], stored, channels, pixels);
                }
            }
            State::Planar(planes) => planes::interleave(planes, channels, &mut self.memory.pixels),
            State::Lent(lent) => {
                self.memory.pixels.clear();
                self.memory.pixels.extend_from_slice(lent);
                self.memory.effort.bytes += lent.len() as u64;
            }
        }
        self.state = State::Pixels;
        let pixels = &mut self.memory.pixels;
        assert_eq!(pixels.len(), channels * height * width, "pixels of shape {:?}", self.shape);
        if std::mem::take(&mut self.mirrored) {
            planes::mirror(pixels, channels, width);
        }
        Ok(pixels)
    }

    /// Exchanges left and right. Costs nothing until the pixels are asked for, and little when they are written.
    pub fn mirror(&mut self) {
        self.mirrored = !self.mirrored;
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
    /// torchvision with antialiasing do). A part of whole pixels is cut out before it is resized; around any other, the
    /// image is seen as far as the filter reaches. Of a file that is still encoded, only the rows that are needed are
    /// decoded, and at a reduced size where that is asked for ([`decoded_at`](Self::decoded_at)) and suffices; the part then has
    /// the place that it has in the smaller picture.
    ///
    /// # Errors
    /// When the image cannot be decoded, or the crop is empty or not inside of it.
    pub fn crop_resize(&mut self, crop: Crop, size: [usize; 2]) -> Result<()> {
        let [channels, height, width] = self.shape;
        let mut part = [crop.top, crop.left, crop.height, crop.width];
        if self.mirrored {
            part[1] = width as f64 - crop.left - crop.width;
        }
        if let State::Planar(_) = self.state {
            // The pixels are made before the part of them, which is then that of the mirrored image.
            let mirrored = std::mem::take(&mut self.mirrored);
            self.pixels_mut()?;
            self.mirrored = mirrored;
        }
        let new_len = channels * size[0] * size[1];
        self.memory.effort.bytes += new_len as u64;
        match self.state {
            State::Encoded(bytes, header, decoded) => {
                let orientation = header.orientation;
                let part = orientation.stored_part(part, [height, width]);
                let new_size = orientation.turned(size);
                let method = method(&header, decoded, part, new_size);
                let part = part.map(|x| x / method.reduction.divisor() as f64);
                let [old_height, old_width] = header.decoded(method);
                let rows = rows_needed(part, new_size[0], old_height);
                let rows = self.memory.decode_rows(bytes, &header, channels, method, rows)?;
                let ImageMemory { pixels, spare, stored, resizer, .. } = &mut *self.memory;
                let old = &spare[..channels * rows * old_width];
                let resize = Resize { channels, old: [rows, old_width], part, new: new_size };
                pixels.resize(new_len, 0);
                if orientation == Orientation::default() {
                    resize.run(resizer, old, pixels)?;
                } else {
                    stored.resize(new_len, 0);
                    resize.run(resizer, old, stored)?;
                    orientation.apply(stored, new_size, channels, pixels);
                }
            }
            State::Lent(lent) => {
                let ImageMemory { pixels, resizer, .. } = &mut *self.memory;
                pixels.resize(new_len, 0);
                let resize = Resize { channels, old: [height, width], part, new: size };
                resize.run(resizer, lent, pixels)?;
            }
            State::Planar(_) | State::Pixels => {
                let ImageMemory { pixels, spare, resizer, .. } = &mut *self.memory;
                spare.resize(new_len, 0);
                let resize = Resize { channels, old: [height, width], part, new: size };
                resize.run(resizer, pixels, spare)?;
                std::mem::swap(pixels, spare);
            }
        }
        self.state = State::Pixels;
        self.shape = [channels, size[0], size[1]];
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

    /// Writes the image into its window of a slot, channel after channel, and mirrors it on the way where it must be.
    ///
    /// # Errors
    /// When the image cannot be decoded or has another size than the window.
    pub(crate) fn write(&mut self, window: &mut WriteOnly<'_>) -> Result<()> {
        let [channels, height, width] = self.shape;
        if channels * height * width != window.len() {
            let message = format!(
                "found an image of shape {:?}, expected {:?} ({} bytes)",
                self.shape,
                self.target,
                window.len()
            );
            return Err(Error::data("image", message));
        }
        self.memory.effort.bytes += window.len() as u64;
        match self.state {
            State::Planar(bytes) if !self.mirrored => window.copy_from_slice(bytes),
            _ => self.split(|at, bytes| window.write_at(at, bytes))?,
        }
        Ok(())
    }

    /// The bytes as they go into a slot, channel after channel.
    ///
    /// # Errors
    /// When the image cannot be decoded.
    pub fn to_planes(&mut self) -> Result<Vec<u8>> {
        let mut planes = Vec::new();
        self.write_planes(&mut planes)?;
        Ok(planes)
    }

    /// Replaces what is in `planes` by the bytes as they go into a slot.
    ///
    /// # Errors
    /// When the image cannot be decoded.
    pub(crate) fn write_planes(&mut self, planes: &mut Vec<u8>) -> Result<()> {
        match self.state {
            State::Planar(bytes) if !self.mirrored => {
                planes.clear();
                planes.extend_from_slice(bytes);
                Ok(())
            }
            _ => {
                planes.resize(self.shape.iter().product(), 0);
                self.split(|at, bytes| planes[at..at + bytes.len()].copy_from_slice(bytes))
            }
        }
    }

    /// Gives all bytes channel after channel to `put(place, bytes)`, in short runs.
    fn split(&mut self, mut put: impl FnMut(usize, &[u8])) -> Result<()> {
        let mirrored = std::mem::take(&mut self.mirrored);
        let [channels, height, width] = self.shape;
        let pixels = self.pixels()?;
        // One long row, where rows do not matter.
        let width = if mirrored { width } else { height * width };
        planes::cpu_arch().dispatch(Split { pixels, channels, width, mirrored, put: &mut put });
        Ok(())
    }

    /// The bytes as they go into a slot; `planes` is memory for them where they must be made.
    #[cfg(test)]
    pub(crate) fn planes<'b>(&'b mut self, planes: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        match self.state {
            State::Planar(bytes) if !self.mirrored => Ok(bytes),
            _ => {
                self.write_planes(planes)?;
                Ok(planes)
            }
        }
    }
}

/// A part of an image and the size that it is to have.
struct Resize {
    channels: usize,
    /// `[height, width]` of what is there of the image.
    old: [usize; 2],
    /// `[top, left, height, width]`.
    part: [f64; 4],
    /// `[height, width]`.
    new: [usize; 2],
}

impl Resize {
    fn run(&self, resizer: &mut fir::Resizer, old: &[u8], new: &mut [u8]) -> Result<()> {
        let pixel = match self.channels {
            1 => fir::PixelType::U8,
            2 => fir::PixelType::U8x2,
            3 => fir::PixelType::U8x3,
            4 => fir::PixelType::U8x4,
            n => {
                return Err(Error::data("image", format!("found {n} channels, expected 1 to 4")));
            }
        };
        let ([rows, columns], [top, left, height, width]) = (self.old, self.part);
        let wrong = |e: &dyn std::fmt::Display| {
            let part = format!("{height} x {width} at {top}, {left} of {rows} x {columns}");
            Error::data("image", format!("the part {part} cannot be resized: {e}"))
        };
        // What is empty would be passed over in silence.
        if !(top >= 0.0 && left >= 0.0 && height > 0.0 && width > 0.0) {
            return Err(wrong(&"it is empty or not inside"));
        }
        let old = fir::images::ImageRef::new(columns as u32, rows as u32, old, pixel)
            .map_err(|e| wrong(&e))?;
        let [new_height, new_width] = self.new.map(|n| n as u32);
        let mut new = fir::images::Image::from_slice_u8(new_width, new_height, new, pixel)
            .map_err(|e| wrong(&e))?;
        let options = fir::ResizeOptions::new()
            .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Bilinear))
            .use_alpha(false);
        if is_whole(self.part) {
            let [top, left, height, width] = self.part.map(|x| x as u32);
            let part = fir::images::CroppedImage::new(&old, left, top, width, height)
                .map_err(|e| wrong(&e))?;
            return resizer.resize(&part, &mut new, Some(&options)).map_err(|e| wrong(&e));
        }
        let options = options.crop(left, top, width, height);
        resizer.resize(&old, &mut new, Some(&options)).map_err(|e| wrong(&e))
    }
}

/// How to decode a picture of which a part is to be resized.
fn method(header: &decode::Header, size: DecodeSize, part: [f64; 4], new: [usize; 2]) -> Method {
    let [_, _, height, width] = part;
    let reduction = match size {
        DecodeSize::Reduced if header.can_be_reduced() => Reduction::down_to([height, width], new),
        DecodeSize::Reduced | DecodeSize::Full => Reduction::Whole,
    };
    Method { reduction, ..Method::default() }
}

/// Whether a part lies on whole pixels and has some.
fn is_whole([top, left, height, width]: [f64; 4]) -> bool {
    let whole = |x: f64| x >= 0.0 && x.fract() == 0.0;
    whole(top) && whole(left) && whole(height) && whole(width) && height > 0.0 && width > 0.0
}

/// Rows of an image of `height` rows, from the first on, that a part needs which is resized to `new_height`.
fn rows_needed(part: [f64; 4], new_height: usize, height: usize) -> usize {
    let [top, _, part_height, _] = part;
    // A filter of triangles reaches one new pixel to each side, and at least one old one.
    let reach = if is_whole(part) { 0.0 } else { (part_height / new_height as f64).max(1.0) + 1.0 };
    let rows = (top + part_height + reach).ceil();
    if rows >= 1.0 { (rows as usize).min(height) } else { height }
}

/// Side of the part that evaluation looks at: 224 of 256 pixels (Krizhevsky et al., 2012).
const CENTRE_SHARE: f64 = 224.0 / 256.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

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

    fn picture(name: &str) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pixels");
        std::fs::read(folder.join(name)).expect("a file in the tree")
    }

    /// Crops of a file, however it is turned, are those of the picture as it is seen.
    #[test]
    fn a_part_of_a_file_is_that_of_the_decoded_image() {
        for orientation in 1..=8 {
            let bytes = picture(&format!("jpeg-exif-{orientation}.jpg"));
            for (i, mirrored) in (0..60u64).flat_map(|i| [(i, false), (i, true)]) {
                let mut rng = Rng::keyed(&[i]);
                let size = [8 + rng.below(20) as usize, 8 + rng.below(20) as usize];
                let (mut memory, mut late) = (ImageMemory::default(), ImageMemory::default());
                let mut late = Image::encoded(&bytes, [3, 1, 1], &mut late).expect("a JPEG");
                let mut soon = Image::encoded(&bytes, [3, 1, 1], &mut memory).expect("a JPEG");
                let [_, height, width] = late.shape();
                let mut part = |len: usize| {
                    let n = 1.0 + rng.below(len as u64) as f64;
                    let first = rng.below(len as u64 - n as u64 + 1) as f64;
                    // Every other part cuts through pixels.
                    if i % 2 == 0 { (first, n) } else { (first + 0.25, (n - 0.5).max(0.5)) }
                };
                let ((top, height), (left, width)) = (part(height), part(width));
                let crop = Crop { top, left, height, width };
                if mirrored {
                    late.mirror();
                    soon.mirror();
                }
                soon.pixels().expect("decodes");
                soon.crop_resize(crop, size).expect("inside");
                late.crop_resize(crop, size).expect("inside");
                let soon = soon.to_planes().expect("decoded");
                let late = late.to_planes().expect("decoded");
                assert_eq!(soon.len(), late.len());
                let most = soon.iter().zip(&late).map(|(&a, &b)| a.abs_diff(b)).max();
                // Rounded before or after turning.
                let allowed = if orientation == 1 && !mirrored { 0 } else { 1 };
                assert!(most <= Some(allowed), "{most:?}: {orientation}, {crop:?}, {mirrored}");
            }
        }
    }

    #[test]
    fn mirroring_twice_is_none_and_waits_for_nothing() {
        for (channels, width) in [(1, 5), (3, 64), (3, 129), (3, 2500), (4, 70), (5, 3)] {
            let planes: Vec<u8> = (0..channels * 2 * width).map(|i| (i * 31 % 251) as u8).collect();
            let expected: Vec<u8> =
                planes.chunks_exact(width).flat_map(|row| row.iter().rev().copied()).collect();
            let mut memory = ImageMemory::default();
            let mut image = Image::raw([channels, 2, width], &planes, &mut memory);
            image.mirror();
            assert_eq!(image.to_planes().expect("raw"), expected, "{channels} x 2 x {width}");
            let mut image = Image::raw([channels, 2, width], &planes, &mut memory);
            image.mirror();
            image.pixels().expect("raw");
            assert_eq!(image.to_planes().expect("raw"), expected, "{channels} x 2 x {width}");
            let mut image = Image::raw([channels, 2, width], &planes, &mut memory);
            image.mirror();
            image.mirror();
            let mut found = vec![7; 3];
            image.write_planes(&mut found).expect("raw");
            assert_eq!(found, planes, "what was there before is replaced");
        }
    }

    #[test]
    fn parts_outside_are_refused() {
        let bytes = picture("jpeg-420.jpg");
        for crop in [
            Crop { top: 40.0, left: 0.0, height: 10.0, width: 10.0 },
            Crop { top: -1.0, left: 0.0, height: 10.0, width: 10.0 },
            Crop { top: 0.0, left: 0.5, height: 10.0, width: 61.0 },
            Crop { top: 0.0, left: 0.0, height: 0.0, width: 10.0 },
            Crop { top: f64::NAN, left: 0.0, height: 1.0, width: 10.0 },
        ] {
            let mut memory = ImageMemory::default();
            let mut image = Image::encoded(&bytes, [3, 8, 8], &mut memory).expect("a JPEG");
            let error = image.crop_resize(crop, [8, 8]).expect_err("outside").to_string();
            assert!(error.contains("cannot be resized"), "{error}");
        }
    }
}
