//! Bytes to normalised numbers, each image as its framing shows it.

use rayon::prelude::*;

use super::call::Call;
use super::normalize::normalize_u8;
use super::parallel::{min_items, vectorized};
use super::real::Real;
use crate::framing::{Framing, fill_byte};

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let &[_, _, height, width] = call.shape(0) else {
        panic!("augment_u8 takes [n, c, h, w], found {:?}", call.shape(0));
    };
    let framings = bytemuck::cast_slice(call.indices(3));
    let (x, scale, shift) = (call.bytes(0), call.real(1), call.real(2));
    augment_u8(x, [height, width], scale, shift, framings, call.out(0));
}

/// y\[n, c, h, w\] = x · scale\[c\] + shift\[c\] of the pixel that the framing of image n shows at each place.
///
/// # Panics
/// If a framing shows pixels outside of its image.
pub fn augment_u8<T: Real>(
    x: &[u8],
    [height, width]: [usize; 2],
    scale: &[T],
    shift: &[T],
    framings: &[Framing],
    y: &mut [T],
) {
    let plane = height * width;
    let sample = scale.len() * plane;
    let samples = y.par_chunks_mut(sample).zip(x.par_chunks(sample)).zip(framings);
    samples.with_min_len(min_items(sample)).for_each(|((y, x), framing)| {
        if *framing == Framing::whole([height, width]) {
            return normalize_u8(x, scale, shift, plane, y);
        }
        let planes = y.chunks_mut(plane).zip(x.chunks(plane)).zip(scale.iter().zip(shift));
        for (channel, ((y, x), (&scale, &shift))) in planes.enumerate() {
            augment_plane(x, width, scale, shift, &Shown::new(framing, channel), y);
        }
    });
}

/// What a framing shows of one plane.
struct Shown<'f> {
    framing: &'f Framing,
    cover: u8,
    margin: u8,
}

impl<'f> Shown<'f> {
    fn new(framing: &'f Framing, channel: usize) -> Self {
        let byte = |fill| fill_byte(fill, channel);
        Self { framing, cover: byte(framing.cover), margin: byte(framing.margin) }
    }
}

fn augment_plane<T: Real>(
    x: &[u8],
    width: usize,
    scale: T,
    shift: T,
    shown: &Shown<'_>,
    y: &mut [T],
) {
    let f = shown.framing;
    let convert = |byte: u8| T::of(f64::from(byte)) * scale + shift;
    let (cover, margin) = (convert(shown.cover), convert(shown.margin));
    let covered = f.covered();
    let (left, right) = (f.left as usize, f.right as usize);
    vectorized(
        #[inline(always)]
        || {
            for (row, y) in (0i32..).zip(y.chunks_exact_mut(width)) {
                if (f.top..f.bottom).contains(&row) && left < right {
                    let x = &x[(f.row + f.row_step * row) as usize * width..][..width];
                    let first = f.column + f.column_step * f.left;
                    y[..left].fill(margin);
                    y[right..].fill(margin);
                    let y = &mut y[left..right];
                    if f.column_step > 0 {
                        let x = &x[first as usize..][..right - left];
                        y.iter_mut().zip(x).for_each(|(y, &x)| *y = convert(x));
                    } else {
                        let x = &x[first as usize + 1 - (right - left)..=first as usize];
                        y.iter_mut().zip(x.iter().rev()).for_each(|(y, &x)| *y = convert(x));
                    }
                } else {
                    y.fill(margin);
                }
                if let Some((rows, columns)) = &covered
                    && rows.contains(&(row as usize))
                {
                    y[columns.clone()].fill(cover);
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::convert;
    use crate::rng::Rng;
    use crate::testing::{assert_close, framed};

    /// A framing at random, of an image that is mirrored, shifted and covered.
    fn random_framing(size @ [height, width]: [usize; 2], rng: &mut Rng) -> Framing {
        let mut framing = Framing::whole(size);
        for _ in 0..rng.below(3) {
            match rng.below(3) {
                0 => framing.mirror_rows(height),
                1 => framing.mirror_columns(width),
                _ => {
                    let by = [(); 2].map(|()| rng.below(9) as i64 - 4);
                    framing.shift(by, size, 0x0b_16_21);
                }
            }
        }
        if rng.below(2) == 0 {
            let range = |side: usize, rng: &mut Rng| {
                let [a, b] = [(); 2].map(|()| rng.below(side as u64 + 1) as usize);
                a.min(b)..a.max(b)
            };
            framing.cover_by(range(height, rng), range(width, rng), 0x01_ff_80);
        }
        framing
    }

    fn check<T: Real>(shape: [usize; 3], tolerance: f64) {
        let [channels, height, width] = shape;
        let n = 40;
        let mut rng = Rng::keyed(&[height as u64, width as u64]);
        let mut framings: Vec<Framing> =
            (1..n).map(|_| random_framing([height, width], &mut rng)).collect();
        framings.push(Framing::default());
        let (scale, shift) = ([0.5, -0.1, 1.0 / 255.0], [0.0, 2.0, -0.5]);
        let (scale, shift) = (&scale[..channels], &shift[..channels]);
        let sample: usize = shape.iter().product();
        let x: Vec<u8> = (0..n * sample).map(|_| rng.below(256) as u8).collect();
        let expected: Vec<f64> = framings
            .iter()
            .zip(x.chunks(sample))
            .flat_map(|(framing, x)| framed(x, shape, framing))
            .enumerate()
            .map(|(i, byte)| (f64::from(byte), i / (height * width) % channels))
            .map(|(byte, c)| byte * scale[c] + shift[c])
            .collect();
        let mut y = vec![T::of(f64::NAN); x.len()];
        let (scale, shift) = (convert::<T>(scale), convert::<T>(shift));
        augment_u8(&x, [height, width], &scale, &shift, &framings, &mut y);
        assert_close(&y, &expected, tolerance, tolerance);
    }

    #[test]
    fn matches_the_definition() {
        for shape in [[1, 1, 1], [3, 1, 7], [3, 7, 1], [1, 28, 28], [3, 63, 65], [2, 5, 33]] {
            check::<f32>(shape, 1e-6);
            check::<f64>(shape, 1e-14);
        }
    }

    #[test]
    fn what_moves_first_is_normalised_to_the_same_bits() {
        let shape @ [channels, height, width] = [3, 33, 20];
        let (scale, shift) = ([0.017_f32, 0.02, 0.03], [-2.1_f32, 0.3, -1.7]);
        let sample: usize = shape.iter().product();
        for key in 0..50 {
            let mut rng = Rng::keyed(&[key]);
            let x: Vec<u8> = (0..sample).map(|_| rng.below(256) as u8).collect();
            let framing = random_framing([height, width], &mut rng);
            let (mut at_once, mut after) = (vec![0.0; sample], vec![0.0; sample]);
            augment_u8(&x, [height, width], &scale, &shift, &[framing], &mut at_once);
            normalize_u8(
                &framed(&x, shape, &framing),
                &scale,
                &shift,
                sample / channels,
                &mut after,
            );
            let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<u32>>();
            assert_eq!(bits(&at_once), bits(&after));
        }
    }
}
