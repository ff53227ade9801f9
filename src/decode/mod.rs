//! From the bytes of an image file to pixels: what the file is (by content, never by name), how large it will be,
//! and the decoding itself, within bounds on memory.

use std::io::Cursor;

use image::{ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::error::{Error, Result};

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
}

/// Reads the head of an image file.
///
/// # Errors
/// When the bytes are no image of a known format, are cut short, or claim more than [`PIXELS_MAX`] pixels. The error
/// does not name the file, which the caller knows.
pub fn header(bytes: &[u8]) -> Result<Header> {
    let (format, decoder) = open(bytes)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > PIXELS_MAX {
        let message = format!("found {width} x {height} pixels, expected 1 to {PIXELS_MAX}");
        return Err(Error::data("image", message));
    }
    let grey = !decoder.color_type().has_color();
    Ok(Header { format, height: height as usize, width: width as usize, grey })
}

/// Decodes an image file into `pixels` as `[row][column][channel]`, with 1 channel (grey) or 3 (RGB), as it is to be seen.
///
/// # Errors
/// As [`header`], and when the data are damaged.
pub fn decode(bytes: &[u8], channels: usize, pixels: &mut Vec<u8>) -> Result<()> {
    let (_, decoder) = open(bytes)?;
    let image = image::DynamicImage::from_decoder(decoder)
        .map_err(|e| Error::data("image", "cannot be decoded").caused_by(e))?;
    pixels.clear();
    if channels == 1 {
        pixels.extend_from_slice(image.to_luma8().as_raw());
    } else {
        pixels.extend_from_slice(image.to_rgb8().as_raw());
    }
    Ok(())
}

fn open(bytes: &[u8]) -> Result<(ImageFormat, impl ImageDecoder + '_)> {
    let damaged = |e| Error::data("image", "is damaged or cut short").caused_by(e);
    let mut reader = ImageReader::new(Cursor::new(bytes));
    let format = image::guess_format(bytes).map_err(|e| {
        Error::data("image", "found bytes of no known format, expected JPEG, PNG, WebP, GIF or BMP")
            .caused_by(e)
    })?;
    reader.set_format(format);
    reader.limits(Limits::default());
    Ok((format, reader.into_decoder().map_err(damaged)?))
}
