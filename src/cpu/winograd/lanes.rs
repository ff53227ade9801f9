//! Between images `[n, c, h, w]` and vectors of channels: sixteen channels of one pixel side by side.

use crate::cpu::real::Real;

/// Channels of a vector: as many `f32` as the widest vector register holds.
pub const LANES: usize = 16;

/// One pixel of sixteen channels.
pub type Lanes<T> = [T; LANES];

/// Pixels that are read or written before those that follow: few enough to stay in the nearest cache.
const STRETCH: usize = 16;

/// Writes pixels `first..` of sixteen planes, which stand `plane` elements apart, to `pixels`.
///
/// Not to be vectorised: element by element it takes 72 ns for sixteen pixels, as blocks of shuffles 120, and with the
/// scatter instructions that a compiler chooses for it, several times as long.
#[inline(never)]
pub fn read<T: Real>(x: &[T], plane: usize, first: usize, pixels: &mut [Lanes<T>]) {
    for (i, pixels) in pixels.chunks_mut(STRETCH).enumerate() {
        for lane in 0..LANES {
            let from = &x[lane * plane + first + i * STRETCH..][..pixels.len()];
            pixels.iter_mut().zip(from).for_each(|(pixel, &from)| pixel[lane] = from);
        }
    }
}

/// The opposite of [`read`].
#[inline(never)]
pub fn write<T: Real>(pixels: &[Lanes<T>], x: &mut [T], plane: usize, first: usize) {
    for (i, pixels) in pixels.chunks(STRETCH).enumerate() {
        for lane in 0..LANES {
            let to = &mut x[lane * plane + first + i * STRETCH..][..pixels.len()];
            to.iter_mut().zip(pixels).for_each(|(to, pixel)| *to = pixel[lane]);
        }
    }
}

/// The first vector of a slice.
///
/// # Panics
/// When the slice is shorter.
#[inline(always)]
pub fn first_of<T: Real>(x: &[T]) -> &Lanes<T> {
    x.first_chunk().expect("a whole vector")
}

/// N vectors. Unlike [`std::array::from_fn`] it is always inlined, and so compiled for the vectors at hand.
#[inline(always)]
pub fn collect<'a, T: Real, const N: usize>(
    vector: impl Fn(usize) -> &'a Lanes<T>,
) -> [&'a Lanes<T>; N] {
    let mut vectors = [vector(0); N];
    for (i, to) in vectors.iter_mut().enumerate() {
        *to = vector(i);
    }
    vectors
}

/// Applies a transform to each lane.
#[inline(always)]
pub fn each<T: Real, const N: usize, const M: usize>(
    transform: impl Fn([T; N]) -> [T; M],
    from: [&Lanes<T>; N],
) -> [Lanes<T>; M] {
    let mut to = [[T::ZERO; LANES]; M];
    for lane in 0..LANES {
        let mut values = [T::ZERO; N];
        for (value, from) in values.iter_mut().zip(from) {
            *value = from[lane];
        }
        let result = transform(values);
        for (to, result) in to.iter_mut().zip(result) {
            to[lane] = result;
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::normal;

    #[test]
    fn pixels_come_and_go_at_every_length() {
        for len in [1, 15, 16, 17, 31, 32, 45] {
            let (plane, first) = (len + 3, 2);
            let x = normal(len as u64, LANES * plane);
            let mut pixels = vec![[f64::NAN; LANES]; len];
            read(&x, plane, first, &mut pixels);
            for (i, pixel) in pixels.iter().enumerate() {
                for (lane, &value) in pixel.iter().enumerate() {
                    assert_eq!(value, x[lane * plane + first + i], "pixel {i} of channel {lane}");
                }
            }
            let mut back = vec![0.0; x.len()];
            write(&pixels, &mut back, plane, first);
            for (i, (&back, &x)) in back.iter().zip(&x).enumerate() {
                let inside = (first..first + len).contains(&(i % plane));
                assert_eq!(back, if inside { x } else { 0.0 }, "element {i} of {len}");
            }
        }
    }
}
