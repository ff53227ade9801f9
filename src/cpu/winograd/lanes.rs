//! Between images `[n, c, h, w]` and vectors of channels: sixteen channels of one pixel side by side.

use std::array;

use crate::cpu::real::Real;

/// Channels of a vector: as many `f32` as the widest vector register holds.
pub const LANES: usize = 16;

/// One pixel of sixteen channels.
pub type Lanes<T> = [T; LANES];

/// Writes pixels `first..` of sixteen planes, which stand `plane` elements apart, to `pixels`.
#[inline(always)]
pub fn read<T: Real>(x: &[T], plane: usize, first: usize, pixels: &mut [Lanes<T>]) {
    let len = pixels.len();
    let planes: [&[T]; LANES] = array::from_fn(|lane| &x[lane * plane + first..][..len]);
    for (i, pixel) in pixels.iter_mut().enumerate() {
        for (to, plane) in pixel.iter_mut().zip(planes) {
            *to = plane[i];
        }
    }
}

/// The opposite of [`read`].
#[inline(always)]
pub fn write<T: Real>(pixels: &[Lanes<T>], x: &mut [T], plane: usize, first: usize) {
    for lane in 0..LANES {
        let to = &mut x[lane * plane + first..][..pixels.len()];
        to.iter_mut().zip(pixels).for_each(|(to, pixel)| *to = pixel[lane]);
    }
}

/// Applies a transform to each lane.
#[inline(always)]
pub fn each<T: Real, const N: usize, const M: usize>(
    transform: impl Fn([T; N]) -> [T; M],
    from: [&Lanes<T>; N],
) -> [Lanes<T>; M] {
    let mut to = [[T::ZERO; LANES]; M];
    for lane in 0..LANES {
        let result = transform(array::from_fn(|i| from[i][lane]));
        for (to, result) in to.iter_mut().zip(result) {
            to[lane] = result;
        }
    }
    to
}
