//! A few rows times a large matrix, as every step of writing text is: its time is that of reading the matrix once.
//!
//! The matrix is read as it lies, by parts of its rows whose sums are added afterwards, and memory is asked for well before it is
//! needed: a processor by itself foresees no further than the end of a page. On two cores of Zen 5, 768 × 2304 runs at 72 GB/s so,
//! which is what reading alone reaches, at 40 without asking ahead, and at 36 in tiles of columns.

use rayon::prelude::*;

use super::matmul::finish_row;
use super::parallel::vectorized;
use super::real::Real;
use crate::graph::op::{Activation, Op};

/// Rows up to which a product goes this way; with more of them it is not bound by the matrix.
const ROWS_MAX: usize = 4;
/// Elements of a matrix from which on it does; smaller ones stay in the caches.
const ELEMENTS_MIN: usize = 1 << 16;
/// Parts of the matrix, each a task, whatever the number of threads.
const PARTS: usize = 8;
/// Elements between what is asked for and what is worked on: 16 KiB of `f32`.
const AHEAD: usize = 4096;
/// Elements that are worked on at a time: some lines of the cache, and registers.
const BLOCK: usize = 64;
/// Columns of the result that a task finishes.
const FINISHED: usize = 1024;

/// Whether a product of these shapes goes this way.
pub(super) fn fits(op: &Op, a: &[usize], b: &[usize]) -> bool {
    matches!(op, Op::MatMul { transpose_a: false, transpose_b: false, .. })
        && a[0] <= ROWS_MAX
        && b.iter().product::<usize>() >= ELEMENTS_MIN
}

/// Elements of working memory for a result of so many.
pub(super) fn scratch_len(y: usize) -> usize {
    PARTS * y
}

/// y\[m, n\] = activation(a\[m, k\] b\[k, n\] + bias\[n\]), all stored row by row; `scratch` has at least
/// [`scratch_len`] elements.
pub(super) fn few_rows<T: Real>(
    [a, b]: [&[T]; 2],
    n: usize,
    bias: Option<&[T]>,
    activation: Activation,
    scratch: &mut [T],
    y: &mut [T],
) {
    let k = b.len() / n;
    let each = k.div_ceil(PARTS);
    let parts = &mut scratch[..k.div_ceil(each) * y.len()];
    parts.par_chunks_mut(y.len()).zip(b.par_chunks(each * n)).enumerate().for_each(
        |(part, (y, b))| {
            vectorized(
                #[inline(always)]
                || add_rows(a, b, [k, n, part * each], y),
            );
        },
    );
    let (len, parts) = (y.len(), &*parts);
    y.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
        row.par_chunks_mut(FINISHED).enumerate().for_each(|(chunk, y)| {
            let first = chunk * FINISHED;
            for (p, part) in parts.chunks_exact(len).enumerate() {
                let part = &part[i * n + first..][..y.len()];
                match p {
                    0 => y.copy_from_slice(part),
                    _ => y.iter_mut().zip(part).for_each(|(y, &x)| *y += x),
                }
            }
            finish_row(y, bias.map(|bias| &bias[first..][..y.len()]), activation);
        });
    });
}

/// y\[m, n\] = a\[m, first..\] b, for as many columns of `a` as `b` has rows.
#[inline(always)]
fn add_rows<T: Real>(a: &[T], b: &[T], [k, n, first]: [usize; 3], y: &mut [T]) {
    y.fill(T::ZERO);
    for (l, row) in b.chunks_exact(n).enumerate() {
        let (blocks, rest) = row.as_chunks::<BLOCK>();
        for (j, block) in blocks.iter().enumerate() {
            ask_for(block, AHEAD);
            for (y, a) in y.chunks_exact_mut(n).zip(a.chunks_exact(k)) {
                let (factor, y) = (a[first + l], &mut y[j * BLOCK..][..BLOCK]);
                y.iter_mut().zip(block).for_each(|(y, &b)| *y += factor * b);
            }
        }
        for (y, a) in y.chunks_exact_mut(n).zip(a.chunks_exact(k)) {
            let y = &mut y[n - rest.len()..];
            y.iter_mut().zip(rest).for_each(|(y, &b)| *y += a[first + l] * b);
        }
    }
}

/// Has the processor load a block so many elements behind this one, if there is one and it knows how.
#[inline(always)]
fn ask_for<T>(block: &[T; BLOCK], ahead: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..size_of_val(block) / 64 {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = block.as_ptr().wrapping_add(ahead).cast::<i8>().wrapping_add(64 * line);
        // SAFETY: a prefetch reads nothing, and no address makes it fail.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (block, ahead);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{convert, in_pools};
    use crate::testing::{assert_close, normal};

    fn product<T: Real>(m: usize, n: usize, k: usize) -> Vec<T> {
        let (a, b, bias) = (normal(1, m * k), normal(2, k * n), normal(3, n));
        let (a, b, bias) = (convert::<T>(&a), convert::<T>(&b), convert::<T>(&bias));
        let mut scratch = vec![T::of(f64::NAN); scratch_len(m * n)];
        let mut y = vec![T::of(f64::NAN); m * n];
        few_rows([&a, &b], n, Some(&bias), Activation::Relu, &mut scratch, &mut y);
        y
    }

    #[test]
    fn matches_the_naive_product() {
        // Fewer rows of b than parts, a part that is shorter, blocks with and without a rest, two tasks of columns.
        for (m, n, k) in [(1, 1, 1), (1, 64, 8), (2, 65, 7), (3, 130, 100), (4, 1100, 33)] {
            let (a, b, bias) = (normal(1, m * k), normal(2, k * n), normal(3, n));
            let at = |i: usize, j: usize| {
                let sum = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum::<f64>();
                (sum + bias[j]).max(0.0)
            };
            let expected: Vec<f64> = (0..m * n).map(|y| at(y / n, y % n)).collect();
            assert_close(&product::<f64>(m, n, k), &expected, 1e-12, 1e-12);
            assert_close(&product::<f32>(m, n, k), &expected, 1e-4, 1e-5);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        in_pools(|| product(2, 700, 100));
    }

    #[test]
    fn only_plain_products_of_few_rows_with_large_matrices_go_this_way() {
        let product = |transpose_a, transpose_b| Op::MatMul {
            transpose_a,
            transpose_b,
            bias: false,
            activation: Activation::Identity,
        };
        let plain = product(false, false);
        assert!(fits(&plain, &[4, 256], &[256, 256]));
        assert!(!fits(&plain, &[5, 256], &[256, 256]));
        assert!(!fits(&plain, &[1, 255], &[255, 256]));
        assert!(!fits(&product(false, true), &[1, 256], &[256, 256]));
        assert!(!fits(&product(true, false), &[1, 1], &[1, 65_536]));
    }
}
