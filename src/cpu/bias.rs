//! Bias per channel, and the sum over all else that is its gradient.

use rayon::prelude::*;

use super::call::Call;
use super::parallel::{min_items, sum, vectorized};
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let (x, y) = (call.real(0), call.out(0));
    let (channels, plane) = channels_and_plane(call.shape(0));
    match call.op {
        Op::Bias => bias(x, call.real(1), plane, y),
        Op::BiasGrad => bias_grad(x, channels, plane, y),
        _ => unreachable!("dispatched by family"),
    }
}

/// Of `[n, c, ..]`: c, and the elements of one sample's channel.
pub fn channels_and_plane(shape: &[usize]) -> (usize, usize) {
    (shape[1], shape[2..].iter().product())
}

/// y\[n, c, plane\] = x + bias\[c\].
pub fn bias<T: Real>(x: &[T], bias: &[T], plane: usize, y: &mut [T]) {
    let sample = bias.len() * plane;
    let samples = y.par_chunks_mut(sample).zip(x.par_chunks(sample));
    samples.with_min_len(min_items(sample)).for_each(|(y, x)| {
        for ((y, x), &bias) in y.chunks_mut(plane).zip(x.chunks(plane)).zip(bias) {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = x + bias);
        }
    });
}

/// Channels that one task sums when they lie side by side: one cache line of `f32` four times over.
const COLUMNS: usize = 64;

/// db\[c\] = Σ dy\[n, c, plane\].
///
/// # Panics
/// When `dy` is not whole samples.
pub fn bias_grad<T: Real>(dy: &[T], channels: usize, plane: usize, db: &mut [T]) {
    let sample = channels * plane;
    assert!(dy.len().is_multiple_of(sample), "whole samples");
    if plane == 1 {
        return column_sums(dy, channels, db, |_, dy| dy);
    }
    db.par_iter_mut().enumerate().for_each(|(channel, db)| {
        *db = T::ZERO;
        for dy in dy.chunks(sample) {
            let dy = &dy[channel * plane..][..plane];
            *db += vectorized(
                #[inline(always)]
                || sum(dy, |dy| dy),
            );
        }
    });
}

/// sums\[column\] = Σ over rows of f(index of the element, x\[row, column\]), always in the order of rows.
pub fn column_sums<T: Real>(
    x: &[T],
    columns: usize,
    sums: &mut [T],
    f: impl Fn(usize, T) -> T + Sync,
) {
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(block, sums)| {
        let first = block * COLUMNS;
        sums.fill(T::ZERO);
        vectorized(
            #[inline(always)]
            || {
                for (row, x) in x.chunks_exact(columns).enumerate() {
                    let x = &x[first..first + sums.len()];
                    for (i, (sum, &x)) in sums.iter_mut().zip(x).enumerate() {
                        *sum += f(row * columns + first + i, x);
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{convert, in_pools};
    use crate::testing::{assert_close, normal};

    fn check<T: Real>(n: usize, c: usize, plane: usize, tolerance: f64) {
        let (x, b) = (normal(1, n * c * plane), normal(2, c));
        let (mut expected, mut expected_db) = (x.clone(), vec![0.0; c]);
        for (i, y) in expected.iter_mut().enumerate() {
            *y += b[i / plane % c];
            expected_db[i / plane % c] += x[i];
        }
        let mut y = vec![T::of(f64::NAN); x.len()];
        bias(&convert::<T>(&x), &convert::<T>(&b), plane, &mut y);
        assert_close(&y, &expected, tolerance, tolerance);
        let mut db = vec![T::of(f64::NAN); c];
        bias_grad(&convert::<T>(&x), c, plane, &mut db);
        let scale = ((n * plane) as f64).sqrt();
        assert_close(&db, &expected_db, tolerance * scale, tolerance);
    }

    #[test]
    fn match_plain_loops() {
        for (n, c, plane) in
            [(1, 1, 1), (3, 5, 1), (7, 65, 1), (130, 200, 1), (2, 3, 7), (9, 4, 784)]
        {
            check::<f32>(n, c, plane, 1e-6);
            check::<f64>(n, c, plane, 1e-13);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let dy = convert::<f32>(&normal(4, 64 * 6 * 49));
        for (channels, plane) in [(6, 49), (6 * 49, 1)] {
            in_pools(|| {
                let mut db = vec![0.0; channels];
                bias_grad(&dy, channels, plane, &mut db);
                db
            });
        }
    }
}
