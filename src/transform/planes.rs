//! The two orders of the bytes of an image: channel after channel, and pixel after pixel.

use std::sync::LazyLock;

/// Channel after channel to pixel after pixel.
pub(super) fn interleave(planes: &[u8], channels: usize, pixels: &mut Vec<u8>) {
    pixels.clear();
    let plane = planes.len() / channels;
    if channels == 1 {
        pixels.extend_from_slice(planes);
        return;
    }
    pixels.resize(planes.len(), 0);
    for (c, plane) in planes.chunks_exact(plane).enumerate() {
        for (pixel, &byte) in pixels.chunks_exact_mut(channels).zip(plane) {
            pixel[c] = byte;
        }
    }
}

/// Exchanges left and right in place.
pub(super) fn mirror(pixels: &mut [u8], channels: usize, width: usize) {
    for row in pixels.chunks_exact_mut((channels * width).max(1)) {
        for x in 0..width / 2 {
            let (left, right) = row.split_at_mut((width - 1 - x) * channels);
            left[x * channels..(x + 1) * channels].swap_with_slice(&mut right[..channels]);
        }
    }
}

/// The widest instructions of this processor, asked for once.
pub(super) fn cpu_arch() -> pulp::Arch {
    static ARCH: LazyLock<pulp::Arch> = LazyLock::new(pulp::Arch::new);
    *ARCH
}

/// Pixels that are split at a time: as many as fit into vector registers.
const RUN: usize = 64;
/// Pixels that are written at a time at most: enough that a copy costs little more than its bytes, few enough to stay
/// in the nearest cache.
const SEGMENT: usize = 1024;

/// Pixel after pixel to channel after channel, compiled for the processor at hand.
pub(super) struct Split<'a, Put> {
    pub pixels: &'a [u8],
    pub channels: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Whether each row goes from its last pixel to its first.
    pub mirrored: bool,
    pub put: &'a mut Put,
}

impl<Put: FnMut(usize, &[u8])> pulp::NullaryFnOnce for Split<'_, Put> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        match self.channels {
            1 => self.run::<1>(),
            2 => self.run::<2>(),
            3 => self.run::<3>(),
            4 => self.run::<4>(),
            _ => self.one_by_one(),
        }
    }
}

impl<Put: FnMut(usize, &[u8])> Split<'_, Put> {
    #[inline(always)]
    fn run<const C: usize>(self) {
        let plane = self.pixels.len() / C;
        let mut planes = [[0; SEGMENT]; C];
        for (y, row) in self.pixels.chunks_exact((C * self.width).max(1)).enumerate() {
            for (i, segment) in row.as_chunks::<C>().0.chunks(SEGMENT).enumerate() {
                split(segment, &mut planes);
                let (first, len) = (i * SEGMENT, segment.len());
                // Where the segment lies in its row: at the other end, if that is mirrored.
                let x = if self.mirrored { self.width - first - len } else { first };
                for (c, bytes) in planes.iter_mut().enumerate() {
                    let bytes = &mut bytes[..len];
                    if self.mirrored {
                        bytes.reverse();
                    }
                    (self.put)(c * plane + y * self.width + x, bytes);
                }
            }
        }
    }

    fn one_by_one(self) {
        let plane = self.pixels.len() / self.channels;
        for (at, pixel) in self.pixels.chunks_exact(self.channels).enumerate() {
            let (y, x) = (at / self.width, at % self.width);
            let x = if self.mirrored { self.width - 1 - x } else { x };
            for (c, &byte) in pixel.iter().enumerate() {
                (self.put)(c * plane + y * self.width + x, &[byte]);
            }
        }
    }
}

/// Writes the channels of at most [`SEGMENT`] pixels to the front of `planes`.
#[inline(always)]
fn split<const C: usize>(pixels: &[[u8; C]], planes: &mut [[u8; SEGMENT]; C]) {
    let (runs, rest) = pixels.as_chunks::<RUN>();
    for (i, run) in runs.iter().enumerate() {
        for (c, plane) in planes.iter_mut().enumerate() {
            let bytes = &mut plane.as_chunks_mut::<RUN>().0[i];
            for (byte, pixel) in bytes.iter_mut().zip(run) {
                *byte = pixel[c];
            }
        }
    }
    let first = pixels.len() - rest.len();
    for (c, plane) in planes.iter_mut().enumerate() {
        plane[first..].iter_mut().zip(rest).for_each(|(byte, pixel)| *byte = pixel[c]);
    }
}
