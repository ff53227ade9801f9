//! Convolutions by 3 × 3 with stride 1 in fewer multiplications: Winograd's F(4 × 4, 3 × 3) (Lavin and Gray, 2016).
//!
//! Tiles of 4 × 4 windows see 6 × 6 elements. In transformed form (`transform.rs`) a tile needs 36 multiplications a pair
//! of channels instead of 144, and for each of the 36 places all tiles and channels together are a matrix product. Both
//! gradients have the same form: that of the input is a convolution with the weight turned round, that of the weight the
//! adjoint of the forward pass.

mod lanes;
mod tiles;
mod transform;

use std::ops::Range;

use rayon::prelude::*;

use self::lanes::{LANES, Lanes};
use self::tiles::{
    Band, Images, PRODUCTS, Weights, band_lanes, input_band, output_band, output_grad_band, pitch,
    weight_grad_of_points, weight_points,
};
use self::transform::{TAPS, WINDOWS};
use super::call::{Scratch, ScratchLen};
use super::gemm::{Matrix, Write, gemm};
use super::im2col::{Axis, Windows};
use super::matmul::activate;
use super::parallel::vectorized;
use super::real::Real;
use crate::graph::op::Activation;

/// Output channels of one product: as many as the points of a block's weights stay in a core's cache.
const OUTPUTS: usize = 64;
/// Tiles of one product, at least where the batch has them.
const TILES: usize = 64;
/// Blocks of tiles whose points are there at once for the weight's gradient: enough for long sums, few enough to
/// stay in a cache.
const GRAD_BLOCKS: usize = 4;
/// Fewer channels than this on either side are not worth the transforms.
const MIN_CHANNELS: usize = 16;

/// A convolution by 3 × 3 with stride 1.
#[derive(Clone, Copy, Debug)]
pub struct Winograd {
    input: Images,
    output: Images,
    padding: [usize; 2],
}

impl Winograd {
    /// Of windows to so many `outputs`, where it pays: a rule by shape alone, so that results do not depend on
    /// the machine.
    pub fn new(windows: &Windows, outputs: usize) -> Option<Self> {
        let Windows { channels, y, x } = *windows;
        let fits = |axis: Axis| {
            axis.kernel == TAPS && axis.stride == 1 && axis.padding < TAPS && axis.windows > 2
        };
        let full = |channels: usize| channels >= MIN_CHANNELS && channels.is_multiple_of(LANES);
        let worth = fits(y) && fits(x) && full(channels) && full(outputs);
        worth.then_some(Self {
            input: Images { channels, height: y.len, width: x.len },
            output: Images { channels: outputs, height: y.windows, width: x.windows },
            padding: [y.padding, x.padding],
        })
    }

    /// The convolution that takes the output's gradient to the input's.
    fn turned(&self) -> Self {
        let padding = self.padding.map(|padding| TAPS - 1 - padding);
        Self { input: self.output, output: self.input, padding }
    }

    /// Rows of tiles of an image.
    fn tiles_down(&self) -> usize {
        self.output.height.div_ceil(WINDOWS)
    }

    /// Tiles of a row.
    fn tiles_across(&self) -> usize {
        self.output.width.div_ceil(WINDOWS)
    }

    /// Rows of tiles that are transformed at once.
    fn block_rows(&self) -> usize {
        TILES.div_ceil(self.tiles_across())
    }

    /// Images of a task: those that fill a block, or one.
    fn task_images(&self) -> usize {
        self.block_rows().div_ceil(self.tiles_down())
    }

    /// Elements of the points of the weight.
    fn weight_points(&self) -> usize {
        PRODUCTS * self.input.channels * self.output.channels
    }

    /// The working memory of [`Winograd::forward`].
    pub fn forward_scratch(&self) -> ScratchLen {
        let tiles = self.block_rows() * self.tiles_across();
        let outputs = self.output.channels.min(OUTPUTS);
        let points = PRODUCTS * (pitch(tiles, self.input.channels) + pitch(tiles, outputs));
        ScratchLen { thread: points + self.work(), shared: self.weight_points() }
    }

    /// Elements of working memory for a band.
    fn work(&self) -> usize {
        let rows = self.block_rows().min(self.tiles_down());
        LANES * band_lanes(rows, self.input.width.max(self.output.width), self.tiles_across())
    }

    /// The working memory of [`Winograd::input_grad`].
    pub fn input_grad_scratch(&self) -> ScratchLen {
        self.turned().forward_scratch()
    }

    /// The working memory of [`Winograd::weight_grad`].
    pub fn weight_grad_scratch(&self) -> ScratchLen {
        let shared = self.weight_points() + GRAD_BLOCKS * self.grad_block();
        ScratchLen { thread: self.work(), shared }
    }

    /// Elements of the points of a block of both sides, for the weight's gradient.
    fn grad_block(&self) -> usize {
        let tiles = self.block_rows() * self.tiles_across();
        PRODUCTS * (pitch(tiles, self.input.channels) + pitch(tiles, self.output.channels))
    }

    /// y = activation(x ⋆ weight + bias).
    pub fn forward<T: Real>(
        &self,
        x: &[T],
        weight: &[T],
        bias: Option<&[T]>,
        activation: Activation,
        scratch: &Scratch<T>,
        y: &mut [T],
    ) {
        let finish = |first: usize, pixels: &mut [Lanes<T>]| {
            if let Some(bias) = bias {
                let bias = &bias[first..first + LANES];
                for pixel in &mut *pixels {
                    pixel.iter_mut().zip(bias).for_each(|(y, &bias)| *y += bias);
                }
            }
            activate(pixels.as_flattened_mut(), activation);
        };
        self.convolve(x, (weight, self.layout()), finish, scratch, y);
    }

    /// dx from dy.
    pub fn input_grad<T: Real>(&self, dy: &[T], weight: &[T], scratch: &Scratch<T>, dx: &mut [T]) {
        let area = TAPS * TAPS;
        let layout =
            Weights { input_stride: area * self.input.channels, output_stride: area, turned: true };
        self.turned().convolve(dy, (weight, layout), |_, _| {}, scratch, dx);
    }

    /// dw from x and dy: a few blocks of tiles at a time, first their points, then for each of the 36 places the
    /// product over all of these tiles.
    pub fn weight_grad<T: Real>(&self, x: &[T], dy: &[T], scratch: &Scratch<T>, dw: &mut [T]) {
        let (inputs, outputs) = (self.input.channels, self.output.channels);
        let mut shared = scratch.shared();
        let (sums, blocks) = shared.split_at_mut(self.weight_points());
        let rows = dy.len() / self.output.len() * self.tiles_down();
        let starts = (0..rows).step_by(self.block_rows() * GRAD_BLOCKS);
        for (i, start) in starts.enumerate() {
            let count = (rows - start).div_ceil(self.block_rows()).min(GRAD_BLOCKS);
            let of = |block: usize| {
                let first = start + block * self.block_rows();
                first..rows.min(first + self.block_rows())
            };
            let blocks = &mut blocks[..count * self.grad_block()];
            blocks.par_chunks_mut(self.grad_block()).enumerate().for_each(|(block, points)| {
                self.grad_points(x, dy, of(block), &mut scratch.thread(), points);
            });
            let blocks = &*blocks;
            sums.par_chunks_mut(inputs * outputs).enumerate().for_each(|(product, sum)| {
                for (block, points) in blocks.chunks(self.grad_block()).enumerate() {
                    let first = i == 0 && block == 0;
                    let write = if first { Write::Replace } else { Write::Add };
                    let tiles = of(block).len() * self.tiles_across();
                    let (x, dy) = points.split_at(PRODUCTS * pitch(tiles, inputs));
                    let x = Matrix::new(&x[product * pitch(tiles, inputs)..], tiles, inputs);
                    let dy = Matrix::new(&dy[product * pitch(tiles, outputs)..], tiles, outputs);
                    gemm(x.transposed(), dy, sum, write);
                }
            });
        }
        let sums = &sums[..self.weight_points()];
        dw.par_chunks_mut(LANES * TAPS * TAPS * inputs).enumerate().for_each(|(i, dw)| {
            vectorized(
                #[inline(always)]
                || weight_grad_of_points(sums, [inputs, outputs, i * LANES], self.layout(), dw),
            );
        });
    }

    /// The points of both sides of some rows of tiles.
    fn grad_points<T: Real>(
        &self,
        x: &[T],
        dy: &[T],
        rows: Range<usize>,
        scratch: &mut [T],
        points: &mut [T],
    ) {
        let work = scratch[..self.work()].as_chunks_mut().0;
        let tiles = rows.len() * self.tiles_across();
        let (input, output) = points.split_at_mut(PRODUCTS * pitch(tiles, self.input.channels));
        self.input_block(x, rows.clone(), work, input);
        for (image, band) in self.bands(rows) {
            let dy = &dy[image * self.output.len()..][..self.output.len()];
            vectorized(
                #[inline(always)]
                || output_grad_band(dy, self.output, band, work, output),
            );
        }
    }

    /// Where the weights between two channels lie.
    fn layout(&self) -> Weights {
        let area = TAPS * TAPS;
        Weights { input_stride: area, output_stride: area * self.input.channels, turned: false }
    }

    fn convolve<T: Real>(
        &self,
        x: &[T],
        weight: (&[T], Weights),
        finish: impl Fn(usize, &mut [Lanes<T>]) + Sync,
        scratch: &Scratch<T>,
        y: &mut [T],
    ) {
        let mut shared = scratch.shared();
        let weights = &mut shared[..self.weight_points()];
        let (inputs, outputs) = (self.input.channels, self.output.channels);
        weights.par_chunks_mut(PRODUCTS * inputs * OUTPUTS).enumerate().for_each(|(i, points)| {
            let block = (i * OUTPUTS, OUTPUTS.min(outputs - i * OUTPUTS));
            vectorized(
                #[inline(always)]
                || weight_points(weight, block, inputs, points),
            );
        });
        let weights = &*weights;
        let images = self.task_images();
        y.par_chunks_mut(images * self.output.len())
            .zip(x.par_chunks(images * self.input.len()))
            .for_each(|(y, x)| {
                self.convolve_images(x, weights, &finish, &mut scratch.thread(), y);
            });
    }

    /// Some images, block by block.
    fn convolve_images<T: Real>(
        &self,
        x: &[T],
        weights: &[T],
        finish: &impl Fn(usize, &mut [Lanes<T>]),
        scratch: &mut [T],
        y: &mut [T],
    ) {
        let (inputs, outputs) = (self.input.channels, self.output.channels);
        let rows = y.len() / self.output.len() * self.tiles_down();
        let (work, scratch) = scratch.split_at_mut(self.work());
        let work = work.as_chunks_mut().0;
        for first in (0..rows).step_by(self.block_rows()) {
            let block = first..rows.min(first + self.block_rows());
            let tiles = block.len() * self.tiles_across();
            let (points, products) = scratch.split_at_mut(PRODUCTS * pitch(tiles, inputs));
            self.input_block(x, block.clone(), work, points);
            for (i, weights) in weights.chunks(PRODUCTS * inputs * OUTPUTS).enumerate() {
                let width = OUTPUTS.min(outputs - i * OUTPUTS);
                let products = &mut products[..PRODUCTS * pitch(tiles, width)];
                let operands =
                    points.chunks(pitch(tiles, inputs)).zip(weights.chunks(inputs * width));
                for (y, (x, weight)) in products.chunks_mut(pitch(tiles, width)).zip(operands) {
                    let (x, weight) =
                        (Matrix::new(x, tiles, inputs), Matrix::new(weight, inputs, width));
                    gemm(x, weight, &mut y[..tiles * width], Write::Replace);
                }
                let channels = (i * OUTPUTS, width);
                self.output_block(products, channels, block.clone(), work, finish, y);
            }
        }
    }

    /// The points of some rows of tiles.
    fn input_block<T: Real>(
        &self,
        x: &[T],
        rows: Range<usize>,
        work: &mut [Lanes<T>],
        points: &mut [T],
    ) {
        for (image, band) in self.bands(rows) {
            let x = &x[image * self.input.len()..][..self.input.len()];
            vectorized(
                #[inline(always)]
                || input_band(x, self.input, self.padding, band, work, points),
            );
        }
    }

    /// Some rows of tiles of some output channels.
    fn output_block<T: Real>(
        &self,
        products: &[T],
        (first, channels): (usize, usize),
        rows: Range<usize>,
        work: &mut [Lanes<T>],
        finish: &impl Fn(usize, &mut [Lanes<T>]),
        y: &mut [T],
    ) {
        let images = Images { channels, ..self.output };
        for (image, band) in self.bands(rows) {
            let y = &mut y[image * self.output.len() + first * images.plane()..][..images.len()];
            vectorized(
                #[inline(always)]
                || {
                    let finish = |channel, pixels: &mut _| finish(first + channel, pixels);
                    output_band(products, band, work, finish, (y, images));
                },
            );
        }
    }

    /// The bands of a block of rows of tiles, each with its image.
    fn bands(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, Band)> + use<> {
        let (down, across) = (self.tiles_down(), self.tiles_across());
        let images = rows.start / down..rows.end.div_ceil(down);
        images.map(move |image| {
            let first = rows.start.max(image * down);
            let end = rows.end.min((image + 1) * down);
            let band = Band {
                rows: first - image * down..end - image * down,
                across,
                first_tile: (first - rows.start) * across,
                block_tiles: rows.len() * across,
            };
            (image, band)
        })
    }
}
