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
    for at in blocks(len) {
        let mut block = array::from_fn(|lane| *first_of(&planes[lane][at..]));
        transpose(&mut block);
        pixels[at..][..LANES].copy_from_slice(&block);
    }
    if len < LANES {
        for (i, pixel) in pixels.iter_mut().enumerate() {
            *pixel = array::from_fn(|lane| planes[lane][i]);
        }
    }
}

/// The opposite of [`read`].
#[inline(always)]
pub fn write<T: Real>(pixels: &[Lanes<T>], x: &mut [T], plane: usize, first: usize) {
    let len = pixels.len();
    for at in blocks(len) {
        let mut block: [Lanes<T>; LANES] = *pixels[at..].first_chunk().expect("a whole block");
        transpose(&mut block);
        for (lane, block) in block.iter().enumerate() {
            x[lane * plane + first + at..][..LANES].copy_from_slice(block);
        }
    }
    if len < LANES {
        for lane in 0..LANES {
            let to = &mut x[lane * plane + first..][..len];
            to.iter_mut().zip(pixels).for_each(|(to, pixel)| *to = pixel[lane]);
        }
    }
}

/// Where blocks of sixteen start: side by side, and the last where it ends with the others, which overlaps the one
/// before. None where there are fewer pixels.
#[inline(always)]
fn blocks(len: usize) -> impl Iterator<Item = usize> {
    let count = if len < LANES { 0 } else { len.div_ceil(LANES) };
    (0..count).map(move |i| (i * LANES).min(len - LANES))
}

/// The first vector of a slice.
///
/// # Panics
/// When the slice is shorter.
#[inline(always)]
pub fn first_of<T: Real>(x: &[T]) -> &Lanes<T> {
    x.first_chunk().expect("a whole vector")
}

/// Transposes by swapping ever smaller blocks, which compiles to shuffles of registers.
#[inline(always)]
fn transpose<T: Real>(block: &mut [Lanes<T>; LANES]) {
    swap::<T, 8>(block);
    swap::<T, 4>(block);
    swap::<T, 2>(block);
    swap::<T, 1>(block);
}

/// Swaps the upper right with the lower left of all blocks of 2 × 2 pieces of H × H.
#[inline(always)]
fn swap<T: Real, const H: usize>(block: &mut [Lanes<T>; LANES]) {
    for i in (0..LANES).filter(|i| i & H == 0) {
        let (x, y) = (block[i], block[i + H]);
        block[i] = array::from_fn(|l| if l & H == 0 { x[l] } else { y[l - H] });
        block[i + H] = array::from_fn(|l| if l & H == 0 { x[l + H] } else { y[l] });
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
