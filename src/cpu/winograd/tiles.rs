//! Bands of tiles, from images to points and back.
//!
//! Points are matrices `[tiles, channels]`, one for each of the 36 products of a tile, [`pitch`] apart.

use std::ops::Range;

use super::lanes::{LANES, Lanes, collect, each, first_of, read, write};
use super::transform::{POINTS, TAPS, WINDOWS, input, output, output_grad, weight, weight_grad};
use crate::cpu::real::Real;

/// Products of a tile.
pub const PRODUCTS: usize = POINTS * POINTS;

/// Images `[channels, height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Images {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Images {
    /// Elements of a channel.
    pub fn plane(&self) -> usize {
        self.height * self.width
    }

    /// Elements of an image.
    pub fn len(&self) -> usize {
        self.channels * self.plane()
    }
}

/// Elements from the matrix of one product of a block to that of the next: a cache line more than it holds, since
/// whole powers of two apart all 36 would fall into the same few lines of the cache.
pub fn pitch(tiles: usize, channels: usize) -> usize {
    tiles * channels + LANES
}

/// Rows of tiles of one image.
#[derive(Clone, Debug)]
pub struct Band {
    /// Which rows of tiles.
    pub rows: Range<usize>,
    /// Tiles of a row.
    pub across: usize,
    /// The place of the first tile in its block.
    pub first_tile: usize,
    /// Tiles of the block.
    pub block_tiles: usize,
}

impl Band {
    /// The rows of pixels that they see of an image, for tiles that see N pixels and start `padding` before it.
    fn pixel_rows<const N: usize>(&self, padding: usize, height: usize) -> Range<usize> {
        let first = (self.rows.start * WINDOWS).saturating_sub(padding);
        let end = ((self.rows.end - 1) * WINDOWS + N).saturating_sub(padding).min(height);
        first.min(end)..end
    }
}

/// How many vectors of working memory a band needs, in images of this width.
pub fn band_lanes(rows: usize, width: usize, across: usize) -> usize {
    (rows * WINDOWS + TAPS - 1) * width + POINTS * (WINDOWS * across + TAPS - 1)
}

/// Writes the points of a band of the input, `[channels, height, width]`, whose windows start `padding` before it.
#[inline(always)]
pub fn input_band<T: Real>(
    x: &[T],
    images: Images,
    padding: [usize; 2],
    band: Band,
    work: &mut [Lanes<T>],
    points: &mut [T],
) {
    to_points(x, images, padding, band, input, work, points);
}

/// As [`input_band`], of a band of the output's gradient.
#[inline(always)]
pub fn output_grad_band<T: Real>(
    dy: &[T],
    images: Images,
    band: Band,
    work: &mut [Lanes<T>],
    points: &mut [T],
) {
    to_points(dy, images, [0, 0], band, output_grad, work, points);
}

/// Transforms the N × N pixels of each tile, down and then across.
#[inline(always)]
fn to_points<T: Real, const N: usize>(
    x: &[T],
    images: Images,
    [top, left]: [usize; 2],
    band: Band,
    transform: impl Fn([T; N]) -> [T; POINTS],
    work: &mut [Lanes<T>],
    points: &mut [T],
) {
    let Images { channels, height, width } = images;
    let seen = band.pixel_rows::<N>(top, height);
    let (pixels, work) = work.split_at_mut(seen.len() * width);
    let padded = WINDOWS * (band.across - 1) + N;
    let columns = &mut work[..POINTS * padded];
    columns.fill([T::ZERO; LANES]);
    let zero = [T::ZERO; LANES];
    let pitch = pitch(band.block_tiles, channels);
    for channel in (0..channels).step_by(LANES) {
        read(&x[channel * images.plane()..], images.plane(), seen.start * width, pixels);
        for (row, tile_y) in band.rows.clone().enumerate() {
            let pixel = |i: usize, column: usize| {
                let y = (tile_y * WINDOWS + i).checked_sub(top).filter(|y| seen.contains(y));
                y.map_or(&zero, |y| &pixels[(y - seen.start) * width + column])
            };
            for column in 0..width.min(padded.saturating_sub(left)) {
                let down = each(&transform, collect(|i| pixel(i, column)));
                for (i, down) in down.into_iter().enumerate() {
                    columns[i * padded + column + left] = down;
                }
            }
            for tile in 0..band.across {
                let at = (band.first_tile + row * band.across + tile) * channels + channel;
                for i in 0..POINTS {
                    let from = &columns[i * padded + tile * WINDOWS..][..N];
                    let across = each(&transform, collect(|j| &from[j]));
                    for (j, across) in across.iter().enumerate() {
                        let product = i * POINTS + j;
                        points[product * pitch + at..][..LANES].copy_from_slice(across);
                    }
                }
            }
        }
    }
}

/// Writes a band of the output from its products; `finish` gets the first channel and the pixels of sixteen channels
/// before they are written.
#[inline(always)]
pub fn output_band<T: Real>(
    products: &[T],
    band: Band,
    work: &mut [Lanes<T>],
    finish: impl Fn(usize, &mut [Lanes<T>]),
    (y, images): (&mut [T], Images),
) {
    let Images { channels, height, width } = images;
    let top = band.rows.start * WINDOWS;
    let pixels = &mut work[..((band.rows.end * WINDOWS).min(height) - top) * width];
    let pitch = pitch(band.block_tiles, channels);
    for channel in (0..channels).step_by(LANES) {
        for tile in 0..band.rows.len() * band.across {
            let at = (band.first_tile + tile) * channels + channel;
            let product = |p: usize| first_of(&products[p * pitch + at..]);
            let mut down = [[[T::ZERO; LANES]; POINTS]; WINDOWS];
            for j in 0..POINTS {
                let column = each(output, collect(|i| product(i * POINTS + j)));
                for (down, column) in down.iter_mut().zip(column) {
                    down[j] = column;
                }
            }
            let (row, column) = (tile / band.across * WINDOWS, tile % band.across * WINDOWS);
            let inside = WINDOWS.min(width - column);
            for (down, to) in down.iter().zip(pixels.chunks_exact_mut(width).skip(row)) {
                let across = each(output, collect(|j| &down[j]));
                to[column..][..inside].copy_from_slice(&across[..inside]);
            }
        }
        finish(channel, pixels);
        write(pixels, &mut y[channel * images.plane()..], images.plane(), top * width);
    }
}

/// Where the nine weights between an input and an output channel lie.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// From one input channel to the next.
    pub input_stride: usize,
    /// From one output channel to the next.
    pub output_stride: usize,
    /// Whether they are read from the last to the first.
    pub turned: bool,
}

impl Weights {
    /// Where weight `tap` of these channels lies.
    #[inline(always)]
    fn at(&self, input: usize, output: usize, tap: usize) -> usize {
        let tap = if self.turned { TAPS * TAPS - 1 - tap } else { tap };
        input * self.input_stride + output * self.output_stride + tap
    }
}

/// Writes the points \[points, inputs, outputs\] of the weights of `outputs` output channels from `first` on.
#[inline(always)]
pub fn weight_points<T: Real>(
    weights: (&[T], Weights),
    (first, outputs): (usize, usize),
    inputs: usize,
    points: &mut [T],
) {
    let (data, layout) = weights;
    for (channel, chunk) in
        (0..inputs).flat_map(|c| (0..outputs).step_by(LANES).map(move |k| (c, k)))
    {
        let mut taps = [[[T::ZERO; LANES]; TAPS]; TAPS];
        for tap in 0..TAPS * TAPS {
            let lanes = &mut taps[tap / TAPS][tap % TAPS];
            for (lane, value) in lanes.iter_mut().enumerate() {
                *value = data[layout.at(channel, first + chunk + lane, tap)];
            }
        }
        let mut down = [[[T::ZERO; LANES]; TAPS]; POINTS];
        for j in 0..TAPS {
            let column = each(weight, collect(|i| &taps[i][j]));
            for (down, column) in down.iter_mut().zip(column) {
                down[j] = column;
            }
        }
        for (i, down) in down.iter().enumerate() {
            let across = each(weight, collect(|j| &down[j]));
            for (j, across) in across.iter().enumerate() {
                let at = ((i * POINTS + j) * inputs + channel) * outputs + chunk;
                points[at..][..LANES].copy_from_slice(across);
            }
        }
    }
}

/// Writes the gradient of the weights from every input channel to sixteen output channels from `first` on, from
/// the points \[points, inputs, outputs\] of all; `dw` starts at the first of the sixteen.
#[inline(always)]
pub fn weight_grad_of_points<T: Real>(
    points: &[T],
    [inputs, outputs, first]: [usize; 3],
    layout: Weights,
    dw: &mut [T],
) {
    for input in 0..inputs {
        let point = |p: usize| first_of(&points[(p * inputs + input) * outputs + first..]);
        let mut down = [[[T::ZERO; LANES]; POINTS]; TAPS];
        for j in 0..POINTS {
            let column = each(weight_grad, collect(|i| point(i * POINTS + j)));
            for (down, column) in down.iter_mut().zip(column) {
                down[j] = column;
            }
        }
        for (i, down) in down.iter().enumerate() {
            let across = each(weight_grad, collect(|j| &down[j]));
            for (j, across) in across.iter().enumerate() {
                for (lane, &value) in across.iter().enumerate() {
                    dw[layout.at(input, lane, i * TAPS + j)] = value;
                }
            }
        }
    }
}
