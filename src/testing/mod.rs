//! What unit and integration tests share: comparison, test data, finite differences.

pub mod planted;

use std::path::Path;

use crate::error::Result;
use crate::framing::Framing;
use crate::rng::Rng;
use crate::source::manifest::Member;
use crate::source::unpack::unpack;

/// Compares by `|actual - expected| <= atol + rtol · |expected|`.
///
/// # Panics
/// When the lengths differ, when anything is not finite, or at the worst element out of tolerance.
#[track_caller]
pub fn assert_close<A, E>(actual: &[A], expected: &[E], atol: f64, rtol: f64)
where
    A: Copy + Into<f64>,
    E: Copy + Into<f64>,
{
    assert_eq!(actual.len(), expected.len(), "lengths differ");
    let mut worst = None;
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let (a, e) = (a.into(), e.into());
        assert!(a.is_finite() && e.is_finite(), "element {i}: {a} where {e} is expected");
        let excess = (a - e).abs() - (atol + rtol * e.abs());
        if excess > 0.0 && worst.is_none_or(|(_, _, _, most)| excess > most) {
            worst = Some((i, a, e, excess));
        }
    }
    if let Some((i, a, e, _)) = worst {
        panic!("element {i}: {a} where {e} is expected, tolerance {atol:e} + {rtol:e} relative");
    }
}

/// Standard normal numbers, the same for the same `key`.
pub fn normal(key: u64, len: usize) -> Vec<f64> {
    let mut rng = Rng::keyed(&[key, 0x7e57]);
    // Through f32, so that twins of either precision and shaders see exactly the same numbers.
    (0..len).map(|_| f64::from(rng.normal() as f32)).collect()
}

/// An image of `shape` `[channels, height, width]` as `framing` shows it, by the definition of [`Framing`].
pub fn framed(planes: &[u8], [channels, height, width]: [usize; 3], framing: &Framing) -> Vec<u8> {
    let f = framing;
    let show = |c: usize, y: i32, x: i32| {
        if (f.cover_top..f.cover_bottom).contains(&y) && (f.cover_left..f.cover_right).contains(&x)
        {
            return f.cover.to_le_bytes()[c % 4];
        }
        if !(f.top..f.bottom).contains(&y) || !(f.left..f.right).contains(&x) {
            return f.margin.to_le_bytes()[c % 4];
        }
        let (row, column) = (f.row + f.row_step * y, f.column + f.column_step * x);
        planes[(c * height + row as usize) * width + column as usize]
    };
    let places = (0..channels * height * width).map(|i| (i / width, (i % width) as i32));
    places.map(|(line, x)| show(line / height, (line % height) as i32, x)).collect()
}

/// The gradient of `f` at `x` by central differences.
pub fn finite_difference(x: &[f64], mut f: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let (at, h) = (x[i], 1e-5);
            x[i] = at + h;
            let above = f(&x);
            x[i] = at - h;
            let below = f(&x);
            x[i] = at;
            (above - below) / (2.0 * h)
        })
        .collect()
}

/// Σ aᵢ bᵢ.
///
/// # Panics
/// When the lengths differ.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths differ");
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Checks that numbers drawn evenly fall evenly into their cells: a chi-square test that a fair draw fails once in
/// about thirty thousand times.
///
/// # Panics
/// When they do not.
#[track_caller]
pub fn assert_even(counts: &[u32]) {
    let total: f64 = counts.iter().map(|&n| f64::from(n)).sum();
    let expected = total / counts.len() as f64;
    assert!(expected >= 5.0, "too few draws for {} cells: {counts:?}", counts.len());
    let chi: f64 = counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
    // Four standard deviations of the cube root (Wilson and Hilferty, 1931).
    let spread = 2.0 / (9.0 * (counts.len() as f64 - 1.0));
    let most = (counts.len() as f64 - 1.0) * (1.0 - spread + 4.0 * spread.sqrt()).powi(3);
    assert!(chi <= most, "chi-square {chi:.1} of at most {most:.1}: {counts:?}");
}

/// Unpacks exactly the files of these names and lengths out of an archive that was fetched into `dir`.
///
/// # Errors
/// As fetching has them.
pub fn unpack_archive(archive: &Path, wanted: &[(&str, u64)], dir: &Path) -> Result<()> {
    let member = |&(path, bytes): &(&str, u64)| Member { path: path.into(), bytes };
    let members: Vec<Member> = wanted.iter().map(member).collect();
    unpack(archive, &members, dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(actual: &[f64], expected: &[f64]) -> bool {
        std::panic::catch_unwind(|| assert_close(actual, expected, 1e-3, 1e-3)).is_err()
    }

    #[test]
    fn passes_within_tolerance_only() {
        assert_close(&[1.0f32, 2.0], &[1.0, 2.0015], 1e-3, 1e-3);
        assert!(fails(&[1.0], &[1.01]));
        assert!(fails(&[1.0], &[1.0, 2.0]));
        assert!(fails(&[f64::NAN], &[f64::NAN]));
        assert!(fails(&[f64::INFINITY], &[f64::INFINITY]));
    }

    #[test]
    fn differences_find_a_gradient() {
        let gradient = finite_difference(&[2.0, 3.0], |x| x[0] * x[0] * x[1]);
        assert_close(&gradient, &[12.0, 4.0], 1e-8, 0.0);
    }

    #[test]
    fn uneven_counts_are_found() {
        let mut rng = Rng::keyed(&[3]);
        let mut draw = |bound: u64| {
            let mut counts = [0; 10];
            (0..10_000).for_each(|_| counts[rng.below(bound) as usize % 10] += 1);
            counts
        };
        assert_even(&draw(10));
        let skewed = draw(11);
        assert!(std::panic::catch_unwind(|| assert_even(&skewed)).is_err(), "{skewed:?}");
    }
}
