//! Bytes to normalised numbers.

use rayon::prelude::*;

use super::bias::channels_and_plane;
use super::call::Call;
use super::parallel::{min_items, vectorized};
use super::real::Real;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let (_, plane) = channels_and_plane(call.shape(0));
    normalize_u8(call.bytes(0), call.real(1), call.real(2), plane, call.out(0));
}

/// y\[n, c, plane\] = x · scale\[c\] + shift\[c\].
pub fn normalize_u8<T: Real>(x: &[u8], scale: &[T], shift: &[T], plane: usize, y: &mut [T]) {
    let sample = scale.len() * plane;
    let samples = y.par_chunks_mut(sample).zip(x.par_chunks(sample));
    samples.with_min_len(min_items(sample)).for_each(|(y, x)| {
        vectorized(
            #[inline(always)]
            || {
                let planes = y.chunks_mut(plane).zip(x.chunks(plane));
                for ((y, x), (&scale, &shift)) in planes.zip(scale.iter().zip(shift)) {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = T::of(f64::from(x)) * scale + shift;
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::convert;
    use crate::testing::assert_close;

    fn check<T: Real>(n: usize, plane: usize, tolerance: f64) {
        let (scale, shift) = ([0.5, -0.1, 1.0 / 255.0], [0.0, 2.0, -0.5]);
        let x: Vec<u8> = (0..n * 3 * plane).map(|i| (i * 37 % 256) as u8).collect();
        let expected: Vec<f64> = (0..x.len())
            .map(|i| f64::from(x[i]) * scale[i / plane % 3] + shift[i / plane % 3])
            .collect();
        let mut y = vec![T::of(f64::NAN); x.len()];
        normalize_u8(&x, &convert::<T>(&scale), &convert::<T>(&shift), plane, &mut y);
        assert_close(&y, &expected, tolerance, tolerance);
    }

    #[test]
    fn matches_the_formula() {
        for (n, plane) in [(1, 1), (3, 49), (20, 784)] {
            check::<f32>(n, plane, 1e-6);
            check::<f64>(n, plane, 1e-14);
        }
    }
}
