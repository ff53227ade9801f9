//! Brightness, contrast, saturation, hue and grey, with the arithmetic of torchvision's `transforms.v2.functional` on
//! tensors of bytes: `f32` throughout, cut to whole bytes at the end of each operation.
//!
//! Images have 1 channel or 3; one channel is grey, whose saturation and hue stay what they are.

use super::Image;
use crate::error::{Error, Result};

/// Red, green and blue in the luminance that torchvision uses.
const LUMA: [f32; 3] = [0.2989, 0.587, 0.114];

/// Multiplies every byte by `factor`.
///
/// # Errors
/// When the image cannot be decoded, or has neither 1 channel nor 3.
pub fn adjust_brightness(image: &mut Image<'_>, factor: f64) -> Result<()> {
    let factor = factor as f32;
    map(image, |byte| to_byte(f32::from(byte) * factor))
}

/// Moves every byte away from (`factor` above 1) or towards (below 1) the image's mean grey; at 0 only that is left.
///
/// # Errors
/// When the image cannot be decoded, or has neither 1 channel nor 3.
pub fn adjust_contrast(image: &mut Image<'_>, factor: f64) -> Result<()> {
    expect_channels(image)?;
    let [channels, height, width] = image.shape();
    let pixels = image.pixels()?;
    let sum: u64 = if channels == 1 {
        pixels.iter().map(|&byte| u64::from(byte)).sum()
    } else {
        // Rows keep the sums within 32 bits, which are added several at a time.
        let row = |row: &[u8]| row.as_chunks::<3>().0.iter().map(|&p| luma(p) as u32).sum::<u32>();
        pixels.chunks(channels * width.clamp(1, 1 << 20)).map(|r| u64::from(row(r))).sum()
    };
    let mean = (sum as f64 / (height * width) as f64) as f32;
    let blend = Blend::new(factor);
    map(image, |byte| blend.bytes(f32::from(byte), mean))
}

/// Moves every pixel away from (`factor` above 1) or towards (below 1) its own grey; at 0 only that is left.
///
/// # Errors
/// When the image cannot be decoded, or has neither 1 channel nor 3.
pub fn adjust_saturation(image: &mut Image<'_>, factor: f64) -> Result<()> {
    let blend = Blend::new(factor);
    for_each_colour(image, |pixel| {
        let grey = floor(luma(pixel));
        pixel.map(|byte| blend.bytes(f32::from(byte), grey))
    })
}

/// Turns the circle of hues by `shift`, from -0.5 to 0.5 of a turn.
///
/// # Errors
/// When the image cannot be decoded, or has neither 1 channel nor 3.
pub fn adjust_hue(image: &mut Image<'_>, shift: f64) -> Result<()> {
    let shift = shift as f32;
    for_each_colour(image, |pixel| {
        let [h, s, v] = to_hsv(pixel.map(|byte| f32::from(byte) * (1.0 / 255.0)));
        let h = h + shift;
        let h = if h < 0.0 { h + 1.0 } else { h - floor(h) };
        from_hsv([h, s, v]).map(|x| (x * 255.999) as u8)
    })
}

/// Turns every pixel grey, in all its channels.
///
/// # Errors
/// When the image cannot be decoded, or has neither 1 channel nor 3.
pub fn grayscale(image: &mut Image<'_>) -> Result<()> {
    for_each_colour(image, |pixel| [luma(pixel) as u8; 3])
}

/// The grey of a pixel, not yet cut to a whole number.
fn luma([r, g, b]: [u8; 3]) -> f32 {
    f32::from(r) * LUMA[0] + f32::from(g) * LUMA[1] + f32::from(b) * LUMA[2]
}

/// Cuts the fraction off a number from 0 to 2³¹. Where processors differ, `f32::floor` is a call.
fn floor(x: f32) -> f32 {
    x as i32 as f32
}

fn to_byte(x: f32) -> u8 {
    // A cast cuts fractions off and keeps to 0..=255.
    x as u8
}

/// A mean of two images, or beyond one of them.
#[derive(Clone, Copy)]
struct Blend {
    first: f32,
    second: f32,
}

impl Blend {
    fn new(factor: f64) -> Self {
        Self { first: factor as f32, second: (1.0 - factor) as f32 }
    }

    fn bytes(self, first: f32, second: f32) -> u8 {
        to_byte(first * self.first + second * self.second)
    }
}

/// Hue (0 to 1), saturation and value of red, green and blue, all of 0 to 1.
fn to_hsv([r, g, b]: [f32; 3]) -> [f32; 3] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let range = max - min;
    if range == 0.0 {
        return [0.0, 0.0, max];
    }
    let [rc, gc, bc] = [r, g, b].map(|x| (max - x) / range);
    let h = if max == r {
        bc - gc
    } else if max == g {
        rc + 2.0 - bc
    } else {
        gc + 4.0 - rc
    };
    let h = h * (1.0 / 6.0) + 1.0;
    [if h >= 1.0 { h - 1.0 } else { h }, range / max, max]
}

fn from_hsv([h, s, v]: [f32; 3]) -> [f32; 3] {
    let h = h * 6.0;
    let sector = floor(h);
    let f = h - sector;
    let q = ((1.0 - s * f) * v).clamp(0.0, 1.0);
    let t = ((s * f + (1.0 - s)) * v).clamp(0.0, 1.0);
    let p = ((1.0 - s) * v).clamp(0.0, 1.0);
    match sector as i32 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

/// Replaces every byte by what `f` makes of it, through a table.
pub(super) fn map(image: &mut Image<'_>, f: impl Fn(u8) -> u8) -> Result<()> {
    expect_channels(image)?;
    let table: [u8; 256] = std::array::from_fn(|byte| f(byte as u8));
    image.pixels_mut()?.iter_mut().for_each(|byte| *byte = table[usize::from(*byte)]);
    Ok(())
}

/// Replaces every pixel of a colour image; grey ones stay.
fn for_each_colour(image: &mut Image<'_>, f: impl Fn([u8; 3]) -> [u8; 3]) -> Result<()> {
    expect_channels(image)?;
    if image.shape()[0] == 3 {
        image.pixels_mut()?.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| *pixel = f(*pixel));
    }
    Ok(())
}

/// What is no grey and no colour image has no colours to change.
pub(super) fn expect_channels(image: &Image<'_>) -> Result<()> {
    match image.shape()[0] {
        1 | 3 => Ok(()),
        found => {
            let message = format!("found {found} channels, expected 1 (grey) or 3 (colour)");
            Err(Error::data("image", message))
        }
    }
}
