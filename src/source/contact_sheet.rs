//! Samples in one picture: the quickest way to see that a data set is read rightly, and what transforms make of it.

use image::{Rgb, RgbImage};

use crate::batch::{DType, SampleSpec};
use crate::error::{Error, Result};
use crate::source::{Source, Target, Viewer};

/// Pixels between samples and around them.
const GAP: u32 = 2;
/// Pixels more between a sample and what transforms make of it.
const DRAWN_GAP: u32 = 8;
const BACKGROUND: Rgb<u8> = Rgb([32, 32, 40]);
/// Rows for a source without classes.
const ROWS_WITHOUT_CLASSES: usize = 10;
/// Rows for a source with many classes: the sheet stays readable, and its size bounded.
const ROWS_MAX: usize = 100;
/// Rows of a sheet of drawn samples: each is one sample.
const DRAWN_ROWS_MAX: usize = 20;
/// Small images are enlarged to about this many pixels.
const TILE_PIXELS: u32 = 56;
/// Large images are shown at most this large: a sheet of 20 rows by 16 columns stays below 25 million pixels.
const TILE_PIXELS_MAX: u32 = 256;

/// A grid with the first `columns` samples of each class, a class a row; without classes, the first
/// samples in their order. `f32` images are stretched from their own smallest to their largest value.
///
/// # Errors
/// When the samples are not images of one to four channels, or one cannot be read.
pub fn contact_sheet(source: &dyn Source, columns: usize) -> Result<RgbImage> {
    let rows = source.spec().classes().unwrap_or(ROWS_WITHOUT_CLASSES).min(ROWS_MAX);
    let mut grid = Grid::new(source, rows, columns, 0)?;
    let mut viewer = Viewer::default();
    for (row, column, index) in first_of_rows(source, rows, columns)? {
        grid.paste(row, column, viewer.read(source, index)?.input);
    }
    Ok(grid.sheet)
}

/// A grid with one sample of each class a row: first as it is without transforms, then as `viewer` gives it in epochs
/// 0, 1, …, as they reach the device.
///
/// # Errors
/// When the samples are not images of one to four channels, or one cannot be read or transformed.
pub fn transformed_sheet(
    source: &dyn Source,
    viewer: &mut Viewer,
    columns: usize,
) -> Result<RgbImage> {
    let rows = source.spec().classes().unwrap_or(ROWS_WITHOUT_CLASSES).min(DRAWN_ROWS_MAX);
    let mut grid = Grid::new(source, rows, columns, DRAWN_GAP)?;
    let mut plain = Viewer::default();
    for (row, _, index) in first_of_rows(source, rows, 1)? {
        grid.paste(row, 0, plain.read(source, index)?.input);
        for column in 1..columns {
            let drawn = viewer.draw(source, index, column as u64 - 1)?;
            grid.paste(row, column, drawn.input);
        }
    }
    Ok(grid.sheet)
}

/// Row, column and number of the samples on a sheet: the first of each class, or the first of all.
fn first_of_rows(
    source: &dyn Source,
    rows: usize,
    columns: usize,
) -> Result<Vec<(usize, usize, usize)>> {
    let mut places = Vec::with_capacity(rows * columns);
    let mut shown = vec![0; rows];
    let mut scratch = Vec::new();
    for index in 0..source.len() {
        if shown.iter().all(|&n| n == columns) {
            break;
        }
        // Most sources know the class without reading; none of them needs to decode for it.
        let row = match source.class(index) {
            Some(class) => class as usize,
            None => match source.read(index, &mut scratch)?.target {
                Target::Class(class) => class as usize,
                _ => index / columns.max(1),
            },
        };
        if row < rows && shown[row] < columns {
            places.push((row, shown[row], index));
            shown[row] += 1;
        }
    }
    Ok(places)
}

/// A sheet that samples are pasted into.
struct Grid {
    sheet: RgbImage,
    look: Look,
    /// Height and width of a sample on the sheet.
    tile: [u32; 2],
    /// Pixels more after the first column.
    first_gap: u32,
}

impl Grid {
    fn new(source: &dyn Source, rows: usize, columns: usize, first_gap: u32) -> Result<Self> {
        let spec = source.spec();
        let look = Look::new(spec, TILE_PIXELS_MAX).ok_or_else(|| {
            let shape = &spec.input_shape;
            let message = format!(
                "found samples of shape {shape:?}, expected images [channels, height, width]"
            );
            Error::data(&source.info().name, message)
        })?;
        let tile @ [tile_h, tile_w] = look.size();
        let sheet_w = columns as u32 * (tile_w + GAP) + GAP + first_gap;
        let sheet_h = rows as u32 * (tile_h + GAP) + GAP;
        let sheet = RgbImage::from_pixel(sheet_w, sheet_h, BACKGROUND);
        Ok(Self { sheet, look, tile, first_gap })
    }

    /// Shows a sample: `input` is as it lies in a slot.
    fn paste(&mut self, row: usize, column: usize, input: &[u8]) {
        let [tile_h, tile_w] = self.tile;
        let x0 = GAP + column as u32 * (tile_w + GAP) + if column > 0 { self.first_gap } else { 0 };
        let y0 = GAP + row as u32 * (tile_h + GAP);
        let tile = self.look.tile(input);
        image::imageops::replace(&mut self.sheet, &tile, x0.into(), y0.into());
    }
}

/// How samples of a specification are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    dtype: DType,
    channels: usize,
    height: usize,
    width: usize,
    /// Height and width of a tile.
    tile: [u32; 2],
}

impl Look {
    /// Tiles at most `longest` pixels long, to which small images are enlarged; none for what is no image of one to four
    /// channels.
    pub(crate) fn new(spec: &SampleSpec, longest: u32) -> Option<Self> {
        let [channels @ 1..=4, height @ 1..=usize::MAX, width @ 1..=usize::MAX] =
            spec.input_shape[..]
        else {
            return None;
        };
        if !matches!(spec.input_dtype, DType::U8 | DType::F32) {
            return None;
        }
        let longer = height.max(width) as u32;
        let shown = match longer {
            small if small <= TILE_PIXELS => TILE_PIXELS / small * small,
            other => other.min(longest),
        };
        let side = |side: usize| (side as u32 * shown / longer).max(1);
        let tile = [side(height), side(width)];
        Some(Self { dtype: spec.input_dtype, channels, height, width, tile })
    }

    /// Height and width of a tile.
    pub(crate) fn size(&self) -> [u32; 2] {
        self.tile
    }

    /// The tile of a sample: `input` is as it lies in a slot.
    pub(crate) fn tile(&self, input: &[u8]) -> RgbImage {
        let [tile_h, tile_w] = self.tile;
        let bytes = displayable(self.dtype, input);
        let plane = self.height * self.width;
        RgbImage::from_fn(tile_w, tile_h, |x, y| {
            let from = |at: u32, tile: u32, len: usize| (at as usize * len) / tile as usize;
            let at = from(y, tile_h, self.height) * self.width + from(x, tile_w, self.width);
            colour(&bytes, self.channels, plane, at)
        })
    }
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
