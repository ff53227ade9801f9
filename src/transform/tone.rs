//! Posterize, solarize, autocontrast, equalize and sharpness, with the arithmetic of torchvision's
//! `transforms.v2.functional` on tensors of bytes.

use super::Image;
use super::color::{expect_channels, map};
use crate::error::Result;

/// Keeps the `bits` highest bits of every byte.
///
/// # Errors
/// When the image cannot be decoded, or has neither 1 channel nor 3.
pub fn posterize(image: &mut Image<'_>, bits: u32) -> Result<()> {
    let mask = u8::MAX.checked_shl(8u32.saturating_sub(bits)).unwrap_or(0);
    map(image, |byte| byte & mask)
}

/// Turns bytes from `threshold` on around: light becomes dark.
///
/// # Errors
/// When the image cannot be decoded, or has neither 1 channel nor 3.
pub fn solarize(image: &mut Image<'_>, threshold: f64) -> Result<()> {
    map(image, |byte| if f32::from(byte) >= threshold as f32 { 255 - byte } else { byte })
}

/// Stretches every channel from its own smallest to its largest byte to all of 0 to 255.
///
/// # Errors
/// When the image cannot be decoded, or has neither 1 channel nor 3.
pub fn autocontrast(image: &mut Image<'_>) -> Result<()> {
    map_channels(image, |histogram, table| {
        let first = histogram.iter().position(|&n| n > 0).unwrap_or(0);
        let last = histogram.iter().rposition(|&n| n > 0).unwrap_or(0);
        if first == last {
            return;
        }
        let scale = (last - first) as f32 * (1.0 / 255.0);
        for (byte, new) in table.iter_mut().enumerate() {
            *new = ((byte as f32 - first as f32) / scale) as u8;
        }
    })
}

/// Spreads the bytes of every channel so that all are about as frequent (Pillow's rounding, as torchvision's).
///
/// # Errors
/// When the image cannot be decoded, or has neither 1 channel nor 3.
pub fn equalize(image: &mut Image<'_>) -> Result<()> {
    map_channels(image, |histogram, table| {
        let last = histogram.iter().rposition(|&n| n > 0).unwrap_or(0);
        let below: u32 = histogram[..last].iter().sum();
        let step = below / 255;
        if step == 0 {
            return;
        }
        let mut sum = step / 2;
        for (new, count) in table.iter_mut().zip(histogram) {
            *new = (sum / step).min(255) as u8;
            sum += count;
        }
    })
}

/// Moves every pixel away from (`factor` above 1) or towards (below 1) the smoothed image; the edge stays.
///
/// # Errors
/// When the image cannot be decoded, or has neither 1 channel nor 3.
pub fn adjust_sharpness(image: &mut Image<'_>, factor: f64) -> Result<()> {
    expect_channels(image)?;
    let shape @ [channels, height, width] = image.shape();
    if height <= 2 || width <= 2 {
        return Ok(());
    }
    let rest = (1.0 - factor) as f32;
    image.redraw(shape, |old, new| {
        new.copy_from_slice(old);
        let row = channels * width;
        for y in 1..height - 1 {
            let [above, here, below] = [y - 1, y, y + 1].map(|y| &old[y * row..][..row]);
            let new = &mut new[y * row..][..row];
            for x in channels..row - channels {
                let three = |line: &[u8]| {
                    u32::from(line[x - channels])
                        + u32::from(line[x])
                        + u32::from(line[x + channels])
                };
                let byte = here[x];
                let sum = three(above) + three(here) + three(below) + 4 * u32::from(byte);
                // Thirteenths never lie halfway between two whole numbers.
                let smooth = (2 * sum + 13) / 26;
                let byte = f32::from(byte);
                new[x] = (byte + (smooth as f32 - byte) * rest) as u8;
            }
        }
    })
}

/// Replaces the bytes of every channel through a table that `make(histogram, table)` writes; the table begins as
/// one that changes nothing.
fn map_channels(image: &mut Image<'_>, make: impl Fn(&[u32; 256], &mut [u8; 256])) -> Result<()> {
    expect_channels(image)?;
    let channels = image.shape()[0];
    let pixels = image.pixels_mut()?;
    // Images have at most a hundred million pixels, so counts have 32 bits.
    let mut histograms = [[0u32; 256]; 3];
    for pixel in pixels.chunks_exact(channels) {
        for (histogram, &byte) in histograms.iter_mut().zip(pixel) {
            histogram[usize::from(byte)] += 1;
        }
    }
    let mut tables = [std::array::from_fn::<u8, 256, _>(|byte| byte as u8); 3];
    for (histogram, table) in histograms.iter().zip(&mut tables).take(channels) {
        make(histogram, table);
    }
    for pixel in pixels.chunks_exact_mut(channels) {
        for (table, byte) in tables.iter().zip(pixel) {
            *byte = table[usize::from(*byte)];
        }
    }
    Ok(())
}
