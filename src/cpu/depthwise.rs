//! Depthwise convolution: every channel by a filter of its own (Howard et al., 2017). With one channel on either side a
//! matrix product has nothing to share, so rows of windows are weighted sums of rows of the input.

use std::ops::Range;

use rayon::prelude::*;

use super::im2col::Windows;
use super::matmul::activate;
use super::parallel::{min_items, vectorized};
use super::real::Real;
use crate::graph::op::Activation;

/// Terms of a sum that are taken side by side, which map to vector lanes.
const LANES: usize = 16;

/// A depthwise convolution: the windows of one channel, and how many channels there are.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise {
    pub windows: Windows,
    pub channels: usize,
}

/// The part of a row of windows that element (i, j) of each of them sees within the input.
struct Seen {
    /// Which of the windows of a plane.
    windows: Range<usize>,
    /// Where the first of them sees, in the plane of the input.
    first: usize,
}

impl Depthwise {
    /// Elements of a filter.
    fn filter(&self) -> usize {
        self.windows.y.kernel * self.windows.x.kernel
    }

    /// What element `tap` of the windows of each row sees.
    #[inline(always)]
    fn rows(&self, tap: usize) -> impl Iterator<Item = Seen> + use<> {
        let Windows { y, x, .. } = self.windows;
        let (i, j) = (tap / x.kernel, tap % x.kernel);
        let columns = x.inside(j);
        let rows = if columns.is_empty() { 0..0 } else { y.inside(i) };
        rows.map(move |row| Seen {
            windows: row * x.windows + columns.start..row * x.windows + columns.end,
            first: y.at(row, i) * x.len + x.at(columns.start, j),
        })
    }

    /// y = activation(x ⋆ weight + bias).
    pub fn forward<T: Real>(
        &self,
        x: &[T],
        weight: &[T],
        bias: Option<&[T]>,
        activation: Activation,
        y: &mut [T],
    ) {
        let stride = self.windows.x.stride;
        let planes = y.par_chunks_mut(self.windows.columns());
        let planes = planes.zip(x.par_chunks(self.windows.plane())).enumerate();
        planes.with_min_len(min_items(self.windows.plane())).for_each(|(plane, (y, x))| {
            let channel = plane % self.channels;
            vectorized(
                #[inline(always)]
                || {
                    y.fill(bias.map_or(T::ZERO, |bias| bias[channel]));
                    let filter = &weight[channel * self.filter()..][..self.filter()];
                    for (tap, &weight) in filter.iter().enumerate() {
                        for Seen { windows, first } in self.rows(tap) {
                            let (y, x) = (&mut y[windows], &x[first..]);
                            match stride {
                                1 => y.iter_mut().zip(x).for_each(|(y, &x)| *y += weight * x),
                                _ => {
                                    let x = x.iter().step_by(stride);
                                    y.iter_mut().zip(x).for_each(|(y, &x)| *y += weight * x);
                                }
                            }
                        }
                    }
                },
            );
            activate(y, activation);
        });
    }

    /// dx: each dy times the filter, at the place of its window.
    pub fn input_grad<T: Real>(&self, dy: &[T], weight: &[T], dx: &mut [T]) {
        let stride = self.windows.x.stride;
        let planes = dx.par_chunks_mut(self.windows.plane());
        let planes = planes.zip(dy.par_chunks(self.windows.columns())).enumerate();
        planes.with_min_len(min_items(self.windows.plane())).for_each(|(plane, (dx, dy))| {
            vectorized(
                #[inline(always)]
                || {
                    dx.fill(T::ZERO);
                    let filter = &weight[plane % self.channels * self.filter()..][..self.filter()];
                    for (tap, &weight) in filter.iter().enumerate() {
                        for Seen { windows, first } in self.rows(tap) {
                            let (dx, dy) = (&mut dx[first..], &dy[windows]);
                            match stride {
                                1 => dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += weight * dy),
                                _ => {
                                    let dx = dx.iter_mut().step_by(stride);
                                    dx.zip(dy).for_each(|(dx, &dy)| *dx += weight * dy);
                                }
                            }
                        }
                    }
                },
            );
        });
    }

    /// dw: for each channel, the sum over the batch of each dy times its window, in the order of the samples.
    pub fn weight_grad<T: Real>(&self, x: &[T], dy: &[T], dw: &mut [T]) {
        let (plane, columns) = (self.windows.plane(), self.windows.columns());
        dw.par_chunks_mut(self.filter()).enumerate().for_each(|(channel, dw)| {
            dw.fill(T::ZERO);
            let xs = x.chunks(plane).skip(channel).step_by(self.channels);
            let dys = dy.chunks(columns).skip(channel).step_by(self.channels);
            for (x, dy) in xs.zip(dys) {
                vectorized(
                    #[inline(always)]
                    || {
                        for (tap, dw) in dw.iter_mut().enumerate() {
                            let mut sums = [T::ZERO; LANES];
                            for Seen { windows, first } in self.rows(tap) {
                                add_products(
                                    &dy[windows],
                                    &x[first..],
                                    self.windows.x.stride,
                                    &mut sums,
                                );
                            }
                            *dw += sums.into_iter().sum::<T>();
                        }
                    },
                );
            }
        });
    }
}

/// Adds aᵢ · b(i · stride) to lane i mod 16.
#[inline(always)]
fn add_products<T: Real>(a: &[T], b: &[T], stride: usize, sums: &mut [T; LANES]) {
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES * stride)) {
        match stride {
            1 => sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (&a, &b))| *sum += a * b),
            _ => {
                let products = a.iter().zip(b.iter().step_by(stride));
                sums.iter_mut().zip(products).for_each(|(sum, (&a, &b))| *sum += a * b);
            }
        }
    }
}
