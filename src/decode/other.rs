//! PNG, WebP, GIF (its first frame) and BMP, by the `image` crate.

use std::borrow::Cow;
use std::io::Cursor;

use image::{ColorType, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{Orientation, png, room};
use crate::error::{Error, Result};

/// `[height, width]` as stored, whether it is grey, and how it has to be turned.
pub(super) fn head(bytes: &[u8], format: ImageFormat) -> Result<([usize; 2], bool, Orientation)> {
    let bytes = bounded(bytes, format);
    let mut decoder = open(&bytes, format)?;
    let (width, height) = decoder.dimensions();
    // What cannot be read of the metadata does not keep the picture from being seen.
    let stored = if format == ImageFormat::WebP && !exif_fits(&bytes) {
        None
    } else {
        decoder.orientation().ok()
    };
    let orientation = stored.map_or_else(Orientation::default, Into::into);
    let grey = !decoder.color_type().has_color();
    Ok(([height as usize, width as usize], grey, orientation))
}

/// Whether all that may be a chunk with an orientation of a WebP picture is as long as it says, wherever it stands: `image` takes so
/// much memory before it reads any.
fn exif_fits(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, b"EXIF").all(|at| {
        let behind = &bytes[at + 4..];
        let size = behind.split_first_chunk().map(|(&size, rest)| (u32::from_le_bytes(size), rest));
        size.is_some_and(|(size, rest)| size as usize <= rest.len())
    })
}

/// Decodes the whole stored picture into the front of `pixels`.
pub(super) fn decode(
    bytes: &[u8],
    format: ImageFormat,
    channels: usize,
    pixels: &mut Vec<u8>,
) -> Result<()> {
    let bytes = bounded(bytes, format);
    let decoder = open(&bytes, format)?;
    let (width, height) = decoder.dimensions();
    let (color, count) = (decoder.color_type(), width as usize * height as usize);
    let damaged = |e| Error::data("image", format!("found a damaged {format:?}")).caused_by(e);
    let wanted = if channels == 1 { ColorType::L8 } else { ColorType::Rgb8 };
    let into = room(pixels, count * channels)?;
    if color == wanted {
        return decoder.read_image(into).map_err(damaged);
    }
    let mut stored = Vec::new();
    decoder
        .read_image(room(&mut stored, count * usize::from(color.bytes_per_pixel()))?)
        .map_err(damaged)?;
    convert(color, &stored, channels, into)
}

/// The file without what takes memory and is not used.
fn bounded(bytes: &[u8], format: ImageFormat) -> Cow<'_, [u8]> {
    if format == ImageFormat::Png { png::without_texts(bytes) } else { Cow::Borrowed(bytes) }
}

fn open(bytes: &[u8], format: ImageFormat) -> Result<impl ImageDecoder + '_> {
    let damaged = |e| {
        Error::data("image", format!("found a {format:?} that is damaged or cut short"))
            .caused_by(e)
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // Half a gigabyte of memory at most.
    reader.limits(Limits::default());
    reader.into_decoder().map_err(damaged)
}

/// Brings stored pixels to 1 or 3 channels of bytes: of 16 bits the upper 8 are taken, transparency is dropped.
fn convert(color: ColorType, stored: &[u8], channels: usize, into: &mut [u8]) -> Result<()> {
    let samples = usize::from(color.channel_count());
    let wide = usize::from(color.bytes_per_pixel()) / samples;
    if wide > 2 {
        let message = format!("found pixels of type {color:?}, expected 8 or 16 bits a channel");
        return Err(Error::data("image", message));
    }
    // The upper byte of a number that is stored as this machine stores them.
    let upper = if wide == 2 && cfg!(target_endian = "little") { 1 } else { 0 };
    let pixels = stored.chunks_exact(samples * wide).zip(into.chunks_exact_mut(channels));
    for (stored, pixel) in pixels {
        let sample = |i: usize| stored[i * wide + upper];
        match (samples >= 3, channels) {
            (true, 1) => pixel[0] = grey(sample(0), sample(1), sample(2)),
            (true, _) => pixel.copy_from_slice(&[sample(0), sample(1), sample(2)]),
            (false, _) => pixel.fill(sample(0)),
        }
    }
    Ok(())
}

/// Brightness as Pillow computes it: ITU-R 601-2 in whole numbers.
fn grey(red: u8, green: u8, blue: u8) -> u8 {
    let sum = u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000;
    (sum >> 16) as u8
}

/// Turns RGB pixels into grey ones, at the front of the same memory.
pub(super) fn to_grey(pixels: &mut [u8]) {
    for i in 0..pixels.len() / 3 {
        pixels[i] = grey(pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orientation_is_asked_for_where_its_chunk_is_as_long_as_it_says() {
        let chunk =
            |size: u32| [b"RIFF....WEBPEXIF".as_slice(), &size.to_le_bytes(), &[7; 10]].concat();
        assert!(exif_fits(&chunk(10)) && exif_fits(&chunk(9)) && exif_fits(b"RIFF....WEBPVP8 "));
        assert!(!exif_fits(&chunk(11)) && !exif_fits(&chunk(u32::MAX)));
        assert!(!exif_fits(&chunk(10)[..19]), "its length is cut");
        // One that lies in another chunk, behind one that fits.
        assert!(!exif_fits(&[chunk(10), chunk(11)].concat()));
    }
}
