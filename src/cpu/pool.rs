//! Max and average pooling, plane by plane.

use rayon::prelude::*;

use super::call::Call;
use super::parallel::{min_items, vectorized};
use super::real::Real;
use crate::graph::op::{Op, PoolGeometry};

/// Sizes of a pooling: of an input plane, of an output plane, and the window.
#[derive(Clone, Copy, Debug)]
pub struct Pooling {
    h: usize,
    w: usize,
    oh: usize,
    ow: usize,
    window: PoolGeometry,
}

impl Pooling {
    /// From `[n, c, h, w]` to `[n, c, oh, ow]`.
    pub fn new(x: &[usize], y: &[usize], window: PoolGeometry) -> Self {
        Self { h: x[2], w: x[3], oh: y[2], ow: y[3], window }
    }

    /// The rows of the input that window row `oy` covers.
    fn rows(&self, oy: usize) -> std::ops::Range<usize> {
        let PoolGeometry { kernel, stride, padding } = self.window;
        let first = (oy * stride[0]).saturating_sub(padding[0]);
        let end = (oy * stride[0] + kernel[0]).saturating_sub(padding[0]).min(self.h);
        first.min(end)..end
    }

    /// The columns of the input that window column `ox` covers.
    fn columns(&self, ox: usize) -> std::ops::Range<usize> {
        let PoolGeometry { kernel, stride, padding } = self.window;
        let first = (ox * stride[1]).saturating_sub(padding[1]);
        let end = (ox * stride[1] + kernel[1]).saturating_sub(padding[1]).min(self.w);
        first.min(end)..end
    }

    /// One over the number of elements of a window, padding included.
    fn share<T: Real>(&self) -> T {
        T::of(1.0 / (self.window.kernel[0] * self.window.kernel[1]) as f64)
    }
}

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let (input, y) = (call.real(0), call.out(0));
    let (before, after) = (call.shape(0), call.out_shape(0));
    match *call.op {
        Op::MaxPool2d { geometry } => {
            let pooling = Pooling::new(before, after, geometry);
            max_pool2d(input, pooling, y, call.out_indices(1));
        }
        Op::MaxPool2dGrad { geometry } => {
            let pooling = Pooling::new(after, before, geometry);
            max_pool2d_grad(input, call.indices(1), pooling, y);
        }
        Op::AvgPool2d { geometry } => {
            avg_pool2d(input, Pooling::new(before, after, geometry), y);
        }
        Op::AvgPool2dGrad { geometry } => {
            avg_pool2d_grad(input, Pooling::new(after, before, geometry), y);
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// The maximum of each window, and where in its plane the first one stands. NaN counts as the largest,
/// as in PyTorch.
pub fn max_pool2d<T: Real>(x: &[T], pooling: Pooling, y: &mut [T], index: &mut [u32]) {
    let Pooling { h, w, oh, ow, window } = pooling;
    let halves = window == HALVES && h == 2 * oh && w == 2 * ow;
    let planes = y.par_chunks_mut(oh * ow).zip(index.par_chunks_mut(oh * ow));
    planes.zip(x.par_chunks(h * w)).with_min_len(min_items(h * w)).for_each(|((y, index), x)| {
        if halves {
            return vectorized(
                #[inline(always)]
                || max_halves(x, w, y, index),
            );
        }
        let outputs = y.chunks_mut(ow).zip(index.chunks_mut(ow)).enumerate();
        for (oy, (y, index)) in outputs {
            for (ox, (y, index)) in y.iter_mut().zip(index).enumerate() {
                (*y, *index) = max_of_window(x, w, pooling.rows(oy), pooling.columns(ox));
            }
        }
    });
}

/// The usual window: 2 × 2 side by side.
const HALVES: PoolGeometry = PoolGeometry { kernel: [2, 2], stride: [2, 2], padding: [0, 0] };

/// As [`max_of_window`] for every window of [`HALVES`], without a branch.
#[inline(always)]
fn max_halves<T: Real>(x: &[T], w: usize, y: &mut [T], index: &mut [u32]) {
    let ow = w / 2;
    let rows = x.chunks_exact(2 * w).zip(y.chunks_exact_mut(ow).zip(index.chunks_exact_mut(ow)));
    for (oy, (x, (y, index))) in rows.enumerate() {
        let (above, below) = x.split_at(w);
        let pairs = above.as_chunks::<2>().0.iter().zip(below.as_chunks::<2>().0);
        let first = 2 * oy * w;
        for (ox, ((a, b), (y, index))) in pairs.zip(y.iter_mut().zip(index)).enumerate() {
            let corner = (first + 2 * ox) as u32;
            let w = w as u32;
            let top = larger((a[0], corner), (a[1], corner + 1));
            let bottom = larger((b[0], corner + w), (b[1], corner + w + 1));
            (*y, *index) = larger(top, bottom);
        }
    }
}

/// The one with the larger value: the first unless the second is above it or NaN.
#[inline(always)]
#[expect(clippy::eq_op, reason = "only NaN differs from itself")]
fn larger<T: Real>(first: (T, u32), second: (T, u32)) -> (T, u32) {
    let a = first.0;
    let b = second.0;
    let take = (b > a) | ((b != b) & (a == a));
    (if take { b } else { a }, if take { second.1 } else { first.1 })
}

fn max_of_window<T: Real>(
    x: &[T],
    w: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) -> (T, u32) {
    let first = rows.start * w + columns.start;
    let mut best = (x[first], first as u32);
    for iy in rows {
        for ix in columns.clone() {
            best = larger(best, (x[iy * w + ix], (iy * w + ix) as u32));
        }
    }
    best
}

/// dx: each dy at its index, 0 elsewhere; windows that overlap add up, in order.
pub fn max_pool2d_grad<T: Real>(dy: &[T], index: &[u32], pooling: Pooling, dx: &mut [T]) {
    let Pooling { h, w, oh, ow, .. } = pooling;
    let planes = dy.par_chunks(oh * ow).zip(index.par_chunks(oh * ow));
    dx.par_chunks_mut(h * w).zip(planes).with_min_len(min_items(h * w)).for_each(
        |(dx, (dy, index))| {
            dx.fill(T::ZERO);
            for (&dy, &index) in dy.iter().zip(index) {
                dx[index as usize] += dy;
            }
        },
    );
}

/// The mean of each window, padding counted as zeros.
pub fn avg_pool2d<T: Real>(x: &[T], pooling: Pooling, y: &mut [T]) {
    let Pooling { h, w, oh, ow, .. } = pooling;
    let planes = y.par_chunks_mut(oh * ow).zip(x.par_chunks(h * w));
    planes.with_min_len(min_items(h * w)).for_each(|(y, x)| {
        for (oy, y) in y.chunks_mut(ow).enumerate() {
            for (ox, y) in y.iter_mut().enumerate() {
                let columns = pooling.columns(ox);
                let row = |iy: usize| x[iy * w..][columns.clone()].iter().copied().sum::<T>();
                *y = pooling.share::<T>() * pooling.rows(oy).map(row).sum::<T>();
            }
        }
    });
}

/// dx: each dy spread evenly over its window.
pub fn avg_pool2d_grad<T: Real>(dy: &[T], pooling: Pooling, dx: &mut [T]) {
    let Pooling { h, w, oh, ow, .. } = pooling;
    let planes = dx.par_chunks_mut(h * w).zip(dy.par_chunks(oh * ow));
    planes.with_min_len(min_items(h * w)).for_each(|(dx, dy)| {
        dx.fill(T::ZERO);
        for (oy, dy) in dy.chunks(ow).enumerate() {
            for (ox, &dy) in dy.iter().enumerate() {
                for iy in pooling.rows(oy) {
                    let row = &mut dx[iy * w..][pooling.columns(ox)];
                    row.iter_mut().for_each(|dx| *dx += pooling.share::<T>() * dy);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::convert;
    use crate::testing::{assert_close, dot, finite_difference, normal};

    /// Planes, their size, and window, stride and padding.
    type Case = (usize, [usize; 2], PoolGeometry);

    fn cases() -> Vec<Case> {
        let geometry = |kernel, stride, padding| PoolGeometry { kernel, stride, padding };
        vec![
            (1, [1, 1], geometry([1, 1], [1, 1], [0, 0])),
            (3, [4, 6], HALVES),
            (2, [5, 7], HALVES),
            (2, [7, 6], geometry([3, 2], [1, 2], [1, 0])),
            (2, [8, 8], geometry([3, 3], [2, 2], [1, 1])),
            (5, [3, 3], geometry([3, 3], [3, 3], [0, 0])),
            (40, [28, 28], HALVES),
        ]
    }

    fn pooling(size: [usize; 2], window: PoolGeometry) -> Pooling {
        let out =
            |i: usize| (size[i] + 2 * window.padding[i] - window.kernel[i]) / window.stride[i] + 1;
        Pooling { h: size[0], w: size[1], oh: out(0), ow: out(1), window }
    }

    /// Calls `f` with each output and all elements of its window, as (index in x, padded ones absent).
    fn windows(planes: usize, p: Pooling, mut f: impl FnMut(usize, Vec<usize>)) {
        let PoolGeometry { kernel, stride, padding } = p.window;
        for o in 0..planes * p.oh * p.ow {
            let (plane, oy, ox) = (o / (p.oh * p.ow), o / p.ow % p.oh, o % p.ow);
            let mut window = Vec::new();
            for i in 0..kernel[0] {
                for j in 0..kernel[1] {
                    let (iy, ix) = (oy * stride[0] + i, ox * stride[1] + j);
                    if (padding[0]..padding[0] + p.h).contains(&iy)
                        && (padding[1]..padding[1] + p.w).contains(&ix)
                    {
                        window.push((plane * p.h + iy - padding[0]) * p.w + ix - padding[1]);
                    }
                }
            }
            f(o, window);
        }
    }

    fn check<T: Real>((planes, size, window): Case, tolerance: f64) {
        let p = pooling(size, window);
        let x = normal(1, planes * p.h * p.w);
        let outputs = planes * p.oh * p.ow;
        let (mut max, mut mean) = (vec![0.0; outputs], vec![0.0; outputs]);
        windows(planes, p, |o, window| {
            max[o] = window.iter().map(|&i| x[i]).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = window.iter().map(|&i| x[i]).sum();
            mean[o] = sum / (p.window.kernel[0] * p.window.kernel[1]) as f64;
        });
        let x = convert::<T>(&x);
        let (mut y, mut index) = (vec![T::of(f64::NAN); outputs], vec![u32::MAX; outputs]);
        max_pool2d(&x, p, &mut y, &mut index);
        assert_close(&y, &max, 0.0, 0.0);
        for (o, &i) in index.iter().enumerate() {
            let plane = o / (p.oh * p.ow) * p.h * p.w;
            assert_eq!(x[plane + i as usize], y[o], "index of output {o}");
        }
        avg_pool2d(&x, p, &mut y);
        assert_close(&y, &mean, tolerance, tolerance);
    }

    #[test]
    fn match_plain_loops() {
        for case in cases() {
            check::<f32>(case, 1e-6);
            check::<f64>(case, 1e-14);
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        for (planes, size, window) in cases().into_iter().take(6) {
            let p = pooling(size, window);
            let (x, dy) = (normal(1, planes * p.h * p.w), normal(2, planes * p.oh * p.ow));
            let max = |x: &[f64]| {
                let (mut y, mut index) = (vec![0.0; dy.len()], vec![0; dy.len()]);
                max_pool2d(x, p, &mut y, &mut index);
                (y, index)
            };
            let mut dx = vec![f64::NAN; x.len()];
            max_pool2d_grad(&dy, &max(&x).1, p, &mut dx);
            assert_close(&dx, &finite_difference(&x, |x| dot(&max(x).0, &dy)), 1e-8, 1e-8);
            let mean = |x: &[f64]| {
                let mut y = vec![0.0; dy.len()];
                avg_pool2d(x, p, &mut y);
                y
            };
            avg_pool2d_grad(&dy, p, &mut dx);
            assert_close(&dx, &finite_difference(&x, |x| dot(&mean(x), &dy)), 1e-8, 1e-8);
        }
    }

    #[test]
    fn the_first_of_equal_maxima_wins_and_nan_beats_all() {
        for window in [HALVES, PoolGeometry { padding: [1, 1], ..HALVES }] {
            let p = pooling([4, 4], window);
            let outputs = p.oh * p.ow;
            let (mut y, mut index) = (vec![0.0f32; outputs], vec![0; outputs]);
            max_pool2d(&[1.0; 16], p, &mut y, &mut index);
            windows(1, p, |o, window| assert_eq!(index[o], window[0] as u32));
            let mut x = [f32::NEG_INFINITY; 16];
            x[5] = f32::NAN;
            max_pool2d(&x, p, &mut y, &mut index);
            windows(1, p, |o, window| {
                assert_eq!(y[o].is_nan(), window.contains(&5));
                assert_eq!(index[o], if window.contains(&5) { 5 } else { window[0] as u32 });
            });
        }
    }
}
