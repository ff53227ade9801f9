//! Some samples of each class in one picture: the quickest way to see that a data set is read rightly.

use image::{Rgb, RgbImage};

use crate::batch::DType;
use crate::error::{Error, Result};
use crate::source::{Source, Target, Viewer};

/// Pixels between samples and around them.
const GAP: u32 = 2;
const BACKGROUND: Rgb<u8> = Rgb([32, 32, 40]);
/// Rows for a source without classes.
const ROWS_WITHOUT_CLASSES: usize = 10;
/// Rows for a source with many classes: the sheet stays readable, and its size bounded.
const ROWS_MAX: usize = 100;
/// Small images are enlarged to about this many pixels.
const TILE_PIXELS: u32 = 56;

/// A grid with the first `columns` samples of each class, a class a row; without classes, the first
/// samples in their order. `f32` images are stretched from their own smallest to their largest value.
///
/// # Errors
/// When the samples are not images of one to four channels, or one cannot be read.
pub fn contact_sheet(source: &dyn Source, columns: usize) -> Result<RgbImage> {
    let spec = source.spec();
    let [channels @ 1..=4, height, width] = spec.input_shape[..] else {
        return Err(Error::data(
            &source.info().name,
            format!(
                "found samples of shape {:?}, expected images [channels, height, width]",
                spec.input_shape
            ),
        ));
    };
    let rows = spec.classes().unwrap_or(ROWS_WITHOUT_CLASSES).min(ROWS_MAX);
    let scale = (TILE_PIXELS / (height.max(width) as u32).max(1)).max(1);
    let (tile_w, tile_h) = (width as u32 * scale + GAP, height as u32 * scale + GAP);
    let mut sheet =
        RgbImage::from_pixel(columns as u32 * tile_w + GAP, rows as u32 * tile_h + GAP, BACKGROUND);
    let mut shown = vec![0; rows];
    let mut viewer = Viewer::default();
    for index in 0..source.len() {
        if shown.iter().all(|&n| n == columns) {
            break;
        }
        let sample = viewer.read(source, index)?;
        let row = match sample.target {
            Target::Class(class) => class as usize,
            Target::Values(_) | Target::Tokens(_) => index / columns.max(1),
        };
        if row >= rows || shown[row] == columns {
            continue;
        }
        let (x0, y0) = (GAP + shown[row] as u32 * tile_w, GAP + row as u32 * tile_h);
        shown[row] += 1;
        let bytes = displayable(spec.input_dtype, sample.input);
        for y in 0..height as u32 * scale {
            for x in 0..width as u32 * scale {
                let at = (y / scale) as usize * width + (x / scale) as usize;
                sheet.put_pixel(x0 + x, y0 + y, colour(&bytes, channels, height * width, at));
            }
        }
    }
    Ok(sheet)
}

fn colour(bytes: &[u8], channels: usize, plane: usize, at: usize) -> Rgb<u8> {
    match channels {
        1 | 2 => Rgb([bytes[at]; 3]),
        _ => Rgb([bytes[at], bytes[plane + at], bytes[2 * plane + at]]),
    }
}

fn displayable(dtype: DType, input: &[u8]) -> Vec<u8> {
    if dtype == DType::U8 {
        return input.to_vec();
    }
    let value = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let values: Vec<f32> = input.chunks_exact(4).map(value).collect();
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = (high - low).max(f32::MIN_POSITIVE);
    values.iter().map(|v| ((v - low) / range * 255.0) as u8).collect()
}
