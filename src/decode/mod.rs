//! From the bytes of an image file to pixels: what the file is (by content, never by name), how large it will be,
//! and the decoding itself, within bounds on memory and time.
//!
//! [`header`] looks at the head alone. [`decode`] gives the whole picture as it is to be seen; [`decode_rows`] gives
//! only as much of the stored picture as a crop needs, before its orientation is applied, and where the codec can also
//! a smaller one.

mod jpeg;
mod method;
mod orientation;
mod other;
mod png;
#[cfg(feature = "turbojpeg")]
mod turbo;

use image::ImageFormat;

use crate::error::{Error, Result};
pub use method::{DecodeSize, JpegCodec, Method, Reduction};
pub use orientation::Orientation;

/// Pixels of an image at most: a hundred million, far above cameras, far below what a bomb claims.
pub const PIXELS_MAX: u64 = 100_000_000;

/// What the head of an image file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format, by content.
    pub format: ImageFormat,
    /// Rows as the image is to be seen: after its orientation is applied.
    pub height: usize,
    /// Columns as the image is to be seen.
    pub width: usize,
    /// Whether it has no colour.
    pub grey: bool,
    /// How the stored picture has to be turned to be seen.
    pub orientation: Orientation,
}

impl Header {
    /// `[height, width]` of the picture as it is stored.
    pub fn stored(&self) -> [usize; 2] {
        self.orientation.turned([self.height, self.width])
    }

    /// `[height, width]` of the stored picture when it is decoded so.
    pub fn decoded(&self, method: Method) -> [usize; 2] {
        self.stored().map(|len| method.reduction.of(len))
    }

    /// Whether the default method can be had for this picture at a reduced size.
    pub fn can_be_reduced(&self) -> bool {
        cfg!(feature = "turbojpeg") && self.format == ImageFormat::Jpeg
    }
}

/// Reads the head of an image file.
///
/// # Errors
/// When the bytes are no image of a known format, are cut short, or claim more pixels than [`PIXELS_MAX`] or than so
/// many bytes can hold. The error does not name the file, which the caller knows.
pub fn header(bytes: &[u8]) -> Result<Header> {
    let header = glance(bytes)?;
    if header.format == ImageFormat::Jpeg {
        jpeg::Head::read(bytes)?.expect_whole(bytes)?;
    }
    let Header { format, height, width, .. } = header;
    match pixels_per_byte_max(format) {
        Some(most) if (height * width) as u64 > most * bytes.len() as u64 => {
            let message = format!(
                "found {width} x {height} pixels in {} bytes, expected at most {most} pixels a byte",
                bytes.len()
            );
            Err(Error::data("image", message))
        }
        _ => Ok(header),
    }
}

/// As [`header`], of bytes that may be only the first ones of a file; whether the rest is there is not looked at.
///
/// # Errors
/// As [`header`], but for the end of the file.
pub fn glance(bytes: &[u8]) -> Result<Header> {
    let format = format(bytes)?;
    let (stored, grey, orientation) = match format {
        ImageFormat::Jpeg => {
            let head = jpeg::Head::read(bytes)?;
            ([head.height, head.width], head.components == 1, head.orientation)
        }
        _ => other::head(bytes, format)?,
    };
    let [height, width] = orientation.turned(stored);
    let pixels = height as u64 * width as u64;
    if pixels == 0 || pixels > PIXELS_MAX {
        let message = format!("found {width} x {height} pixels, expected 1 to {PIXELS_MAX}");
        return Err(Error::data("image", message));
    }
    Ok(Header { format, height, width, grey, orientation })
}

/// Decodes an image file into `pixels` as `[row][column][channel]`, with 1 channel (grey) or 3 (RGB), as it is to be
/// seen. What is transparent shows the colour it is stored with.
///
/// # Errors
/// As [`header`], and when the data are damaged or cut short.
pub fn decode(bytes: &[u8], channels: usize, pixels: &mut Vec<u8>) -> Result<()> {
    decode_by(bytes, channels, Method::default(), pixels)
}

/// As [`decode`], by a method of choice.
///
/// # Errors
/// As [`decode`].
///
/// # Panics
/// As [`decode_rows`].
pub fn decode_by(
    bytes: &[u8],
    channels: usize,
    method: Method,
    pixels: &mut Vec<u8>,
) -> Result<()> {
    let header = header(bytes)?;
    let [height, width] = header.decoded(method);
    let mut stored = Vec::new();
    let rows = decode_rows(bytes, &header, channels, method, height, &mut stored)?;
    debug_assert_eq!(rows, height);
    stored.truncate(channels * height * width);
    if header.orientation == Orientation::default() {
        *pixels = stored;
    } else {
        pixels.resize(stored.len(), 0);
        header.orientation.apply(&stored, [height, width], channels, pixels);
    }
    Ok(())
}

/// Decodes at least the first `rows` rows of the stored picture, which has [`Header::decoded`] of them, into the front of
/// `pixels`, which grows where it must and never shrinks, as `[row][column][channel]` with 1 channel or 3. Returns how
/// many rows it decoded. The same rows are the same, however many are asked for.
///
/// # Errors
/// When the data are damaged or cut short.
///
/// # Panics
/// If there are not 1 or 3 channels, or the method cannot decode this picture at the reduced size that it asks for.
pub fn decode_rows(
    bytes: &[u8],
    header: &Header,
    channels: usize,
    method: Method,
    rows: usize,
    pixels: &mut Vec<u8>,
) -> Result<usize> {
    assert!(channels == 1 || channels == 3, "grey or RGB");
    let reduces = header.can_be_reduced() && method.codec != JpegCodec::Zune;
    assert!(reduces || method.reduction == Reduction::Whole, "{method:?} of {:?}", header.format);
    match header.format {
        ImageFormat::Jpeg => jpeg::decode_rows(bytes, channels, method, rows, pixels),
        format => {
            other::decode(bytes, format, channels, pixels)?;
            Ok(header.stored()[0])
        }
    }
}

/// The front of `memory`, at least `len` bytes long. Memory only grows, so that bytes are zeroed once, not with each
/// image.
fn room(memory: &mut Vec<u8>, len: usize) -> Result<&mut [u8]> {
    if len > memory.len() {
        memory.try_reserve_exact(len - memory.len()).map_err(|e| {
            let message = format!("needs {len} bytes of memory, more than there is");
            Error::data("image", message).caused_by(e)
        })?;
        memory.resize(len, 0);
    }
    Ok(&mut memory[..len])
}

fn format(bytes: &[u8]) -> Result<ImageFormat> {
    const EXPECTED: &str = "expected JPEG, PNG, WebP, GIF or BMP";
    if bytes.is_empty() {
        return Err(Error::data("image", format!("found an empty file, {EXPECTED}")));
    }
    let unknown = || Error::data("image", format!("found bytes of no known format, {EXPECTED}"));
    match image::guess_format(bytes).map_err(|e| unknown().caused_by(e))? {
        known @ (ImageFormat::Jpeg
        | ImageFormat::Png
        | ImageFormat::WebP
        | ImageFormat::Gif
        | ImageFormat::Bmp) => Ok(known),
        other => Err(Error::data("image", format!("found {other:?}, {EXPECTED}"))),
    }
}

/// Pixels that a byte of a file can stand for at most, where the format has such a bound. What claims more is cut
/// short or a bomb, and refused before memory is taken for it.
fn pixels_per_byte_max(format: ImageFormat) -> Option<u64> {
    match format {
        // Each block of 8 x 8 pixels takes a bit at least, the code of its mean.
        ImageFormat::Jpeg => Some(8 * 64),
        // DEFLATE unpacks a byte to 1032 at most, with eight pixels of one bit each.
        ImageFormat::Png => Some(1032 * 8),
        // LZW: a code of 12 bits stands for 4096 pixels at most.
        ImageFormat::Gif => Some(4096),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
