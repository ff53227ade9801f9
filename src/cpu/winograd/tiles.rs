//! Rows of tiles, from images to points and back.
//!
//! Points are matrices, one for each of the 36 products of a tile: `[points, tiles, channels]`.

use std::array;

use super::lanes::{LANES, Lanes, each, first_of, read, write};
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

/// A row of tiles: the `tiles` from `first_tile` on among the `stride` of a block.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub first_tile: usize,
    pub tiles: usize,
    pub stride: usize,
}

/// How many vectors of working memory a row needs, for elements of images of this width.
pub fn row_lanes(width: usize, tiles: usize) -> usize {
    POINTS * width + POINTS * (WINDOWS * tiles + TAPS - 1)
}

/// Writes the points of a row of tiles of the input, whose windows start `padding` before the image.
#[inline(always)]
pub fn input_row<T: Real>(
    x: &[T],
    images: Images,
    (tile_y, padding): (usize, [usize; 2]),
    row: Row,
    work: &mut [Lanes<T>],
    points: &mut [T],
) {
    let top = (tile_y * WINDOWS) as isize - padding[0] as isize;
    to_points(x, images, (top, padding[1]), row, input, work, points);
}

/// As [`input_row`], of a row of tiles of the output's gradient.
#[inline(always)]
pub fn output_grad_row<T: Real>(
    dy: &[T],
    images: Images,
    tile_y: usize,
    row: Row,
    work: &mut [Lanes<T>],
    points: &mut [T],
) {
    let top = (tile_y * WINDOWS) as isize;
    to_points(dy, images, (top, 0), row, output_grad, work, points);
}

/// Transforms N rows of pixels from `top` on, down and then across.
#[inline(always)]
fn to_points<T: Real, const N: usize>(
    x: &[T],
    images: Images,
    (top, left): (isize, usize),
    row: Row,
    transform: impl Fn([T; N]) -> [T; POINTS],
    work: &mut [Lanes<T>],
    points: &mut [T],
) {
    let Images { channels, height, width } = images;
    let (pixels, work) = work.split_at_mut(POINTS * width);
    let padded = WINDOWS * (row.tiles - 1) + N;
    let columns = &mut work[..POINTS * padded];
    columns.fill([T::ZERO; LANES]);
    let row_at = |i: usize| usize::try_from(top + i as isize).ok().filter(|&y| y < height);
    let first = (0..N).find_map(row_at).unwrap_or(0);
    let rows = (0..N).filter_map(row_at).count();
    const { assert!(N <= POINTS) };
    let zero = [T::ZERO; LANES];
    for channel in (0..channels).step_by(LANES) {
        let pixels = &mut pixels[..rows * width];
        read(&x[channel * images.plane()..], images.plane(), first * width, pixels);
        for column in 0..width.min(padded - left.min(padded)) {
            let pixel = |i| row_at(i).map_or(&zero, |y| &pixels[(y - first) * width + column]);
            let down = each(&transform, array::from_fn(pixel));
            for (i, down) in down.into_iter().enumerate() {
                columns[i * padded + column + left] = down;
            }
        }
        for tile in 0..row.tiles {
            let at = (row.first_tile + tile) * channels + channel;
            for i in 0..POINTS {
                let from = &columns[i * padded + tile * WINDOWS..][..N];
                let across = each(&transform, array::from_fn(|j| &from[j]));
                for (j, across) in across.iter().enumerate() {
                    let product = i * POINTS + j;
                    points[product * row.stride * channels + at..][..LANES].copy_from_slice(across);
                }
            }
        }
    }
}

/// Writes a row of tiles of the output from its products `[points, tiles, channels]`; `finish` gets the first
/// channel and the pixels of sixteen channels before they are written.
#[inline(always)]
pub fn output_row<T: Real>(
    products: &[T],
    row: Row,
    work: &mut [Lanes<T>],
    finish: impl Fn(usize, &mut [Lanes<T>]),
    (y, images, tile_y): (&mut [T], Images, usize),
) {
    let Images { channels, height, width } = images;
    let top = tile_y * WINDOWS;
    let rows = WINDOWS.min(height - top);
    let pixels = &mut work[..rows * width];
    for channel in (0..channels).step_by(LANES) {
        for tile in 0..row.tiles {
            let at = (row.first_tile + tile) * channels + channel;
            let product = |p: usize| first_of(&products[p * row.stride * channels + at..]);
            let mut down = [[[T::ZERO; LANES]; POINTS]; WINDOWS];
            for j in 0..POINTS {
                let column = each(output, array::from_fn(|i| product(i * POINTS + j)));
                for (down, column) in down.iter_mut().zip(column) {
                    down[j] = column;
                }
            }
            let inside = WINDOWS.min(width - tile * WINDOWS);
            for (i, down) in down.iter().enumerate().take(rows) {
                let across = each(output, array::from_fn(|j| &down[j]));
                let to = &mut pixels[i * width + tile * WINDOWS..][..inside];
                to.copy_from_slice(&across[..inside]);
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
        for lane in 0..LANES {
            for tap in 0..TAPS * TAPS {
                let from = layout.at(channel, first + chunk + lane, tap);
                taps[tap / TAPS][tap % TAPS][lane] = data[from];
            }
        }
        let mut down = [[[T::ZERO; LANES]; TAPS]; POINTS];
        for j in 0..TAPS {
            let column = each(weight, array::from_fn(|i| &taps[i][j]));
            for (down, column) in down.iter_mut().zip(column) {
                down[j] = column;
            }
        }
        for (i, down) in down.iter().enumerate() {
            let across = each(weight, array::from_fn(|j| &down[j]));
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
            let column = each(weight_grad, array::from_fn(|i| point(i * POINTS + j)));
            for (down, column) in down.iter_mut().zip(column) {
                down[j] = column;
            }
        }
        for (i, down) in down.iter().enumerate() {
            let across = each(weight_grad, array::from_fn(|j| &down[j]));
            for (j, across) in across.iter().enumerate() {
                for (lane, &value) in across.iter().enumerate() {
                    dw[layout.at(input, lane, i * TAPS + j)] = value;
                }
            }
        }
    }
}
