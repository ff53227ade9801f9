//! A few rows times a large matrix, as every step of writing texts is: its time is that of reading the matrix once.
//!
//! The matrix is read as it lies, some of its rows side by side, and memory is asked for well before it is needed: a processor by
//! itself foresees no further than the end of a page. How a sum is taken depends on the shape of the matrix alone, so that a
//! row comes out the same whichever rows are beside it.

mod across;
mod down;

use pulp::Simd;

use super::matmul::finish_row;
use super::parallel::{has_vectors, vectorized, with_registers};
use super::real::Real;
use crate::graph::op::{Activation, Op};

/// Rows up to which a product goes this way; with more of them it is not bound by the matrix.
const ROWS_MAX: usize = 16;
/// Elements of a matrix from which on it does; smaller ones stay in the caches.
const ELEMENTS_MIN: usize = 1 << 16;
/// Elements of a row of a matrix from which on it does.
const WIDTH_MIN: usize = 64;

/// a\[m, k\] times a matrix of k × n.
#[derive(Clone, Copy)]
pub(super) struct Product<'a, T> {
    pub a: &'a [T],
    /// `[k, n]`, or `[n, k]` of a transpose.
    pub b: &'a [T],
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// Whether a product of these shapes goes this way.
pub(super) fn fits(op: &Op, a: &[usize], b: &[usize]) -> bool {
    matches!(op, Op::MatMul { transpose_a: false, .. })
        && a[0] <= ROWS_MAX
        && b[1] >= WIDTH_MIN
        && b[0] * b[1] >= ELEMENTS_MIN
        && has_vectors()
}

/// Elements of working memory of an operation that [`fits`].
pub(super) fn scratch_len(op: &Op, a: &[usize], b: &[usize]) -> usize {
    match op {
        Op::MatMul { transpose_b: false, .. } => down::scratch_len(a[0], b[1], b[0]),
        _ => 0,
    }
}

/// y\[m, n\] = activation(a b + bias\[n\]), all stored row by row; `scratch` has at least [`scratch_len`] elements.
pub(super) fn few_rows<T: Real>(
    product: Product<'_, T>,
    transpose_b: bool,
    bias: Option<&[T]>,
    activation: Activation,
    scratch: &mut [T],
    y: &mut [T],
) {
    if transpose_b {
        across::product(product, bias, activation, y);
    } else {
        down::product(product, bias, activation, scratch, y);
    }
}

/// Has the processor load the lines of so many bytes, if there are any and it knows how.
#[inline(always)]
fn ask_for<T>(address: *const T, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..bytes.div_ceil(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, and no address makes it fail.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast::<i8>().wrapping_add(64 * line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (address, bytes);
}

/// Numbers of a register.
const fn lanes<T: Real, S: Simd>() -> usize {
    size_of::<T::Lanes<S>>() / size_of::<T>()
}

/// So many numbers as registers.
#[inline(always)]
fn registers<T: Real, S: Simd>(x: &[T], count: usize) -> &[T::Lanes<S>] {
    bytemuck::cast_slice(&x[..count * lanes::<T, S>()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{in_pools, run_op};
    use crate::testing::{assert_close, normal};

    fn op(transpose_b: bool) -> Op {
        Op::MatMul { transpose_a: false, transpose_b, bias: true, activation: Activation::Relu }
    }

    /// The shape of a matrix of k × n as it is stored.
    fn stored(n: usize, k: usize, transpose_b: bool) -> Vec<usize> {
        if transpose_b { vec![n, k] } else { vec![k, n] }
    }

    /// The product of the rows `a`, by the way that it goes.
    fn product<T: Real>(a: &[f64], n: usize, k: usize, transpose_b: bool) -> Vec<T> {
        let (m, b, bias) = (a.len() / k, normal(2, k * n), normal(3, n));
        let shapes = [vec![m, k], stored(n, k, transpose_b), vec![n]];
        run_op(op(transpose_b), &[a, &b, &bias], &shapes, &[vec![m, n]]).remove(0)
    }

    /// The same by plain sums.
    fn plain(a: &[f64], n: usize, k: usize, transpose_b: bool) -> Vec<f64> {
        let (m, b, bias) = (a.len() / k, normal(2, k * n), normal(3, n));
        let at = |l, j| if transpose_b { b[j * k + l] } else { b[l * n + j] };
        let sum = |i, j| (0..k).map(|l| a[i * k + l] * at(l, j)).sum::<f64>();
        (0..m * n).map(|y| (sum(y / n, y % n) + bias[y % n]).max(0.0)).collect()
    }

    /// Widths and depths: prime, so that tiles, parts, strips, blocks and lanes leave rests; more tiles than one; no rest.
    const SHAPES: [(usize, usize); 4] = [(523, 131), (67, 1009), (1031, 67), (1024, 256)];

    #[test]
    fn matches_the_naive_product_in_both_layouts() {
        for (n, k) in SHAPES {
            for transpose_b in [false, true] {
                for m in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17] {
                    let shape = stored(n, k, transpose_b);
                    assert_eq!(
                        fits(&op(transpose_b), &[m, k], &shape),
                        m <= ROWS_MAX && has_vectors()
                    );
                    let a = normal(1, m * k);
                    let expected = plain(&a, n, k, transpose_b);
                    let scale = (k as f64).sqrt();
                    assert_close(
                        &product::<f64>(&a, n, k, transpose_b),
                        &expected,
                        1e-13 * scale,
                        1e-13,
                    );
                    assert_close(
                        &product::<f32>(&a, n, k, transpose_b),
                        &expected,
                        4e-6 * scale,
                        1e-6,
                    );
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_whichever_are_beside_it() {
        for (n, k) in SHAPES {
            for transpose_b in [false, true] {
                let a = normal(1, ROWS_MAX * k);
                let all = product::<f32>(&a, n, k, transpose_b);
                for m in [1, 2, 3, 5, 8, 13] {
                    let (first, beside) = (ROWS_MAX - m, &a[(ROWS_MAX - m) * k..]);
                    assert!(product::<f32>(beside, n, k, transpose_b) == all[first * n..], "{m}");
                }
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        for (n, k) in SHAPES {
            in_pools(|| product(&normal(1, 11 * k), n, k, false));
            in_pools(|| product(&normal(1, 11 * k), n, k, true));
        }
    }

    #[test]
    fn only_products_of_few_rows_with_large_matrices_go_this_way() {
        let transposed_a = Op::MatMul {
            transpose_a: true,
            transpose_b: false,
            bias: false,
            activation: Activation::Identity,
        };
        for transpose_b in [false, true] {
            assert_eq!(fits(&op(transpose_b), &[16, 256], &[256, 256]), has_vectors());
            assert!(!fits(&op(transpose_b), &[17, 256], &[256, 256]));
            assert!(!fits(&op(transpose_b), &[1, 255], &[255, 256]));
            assert!(!fits(&op(transpose_b), &[1, 2048], &[2048, 32]));
        }
        assert!(!fits(&transposed_a, &[1, 1], &[1, 65_536]));
    }
}
