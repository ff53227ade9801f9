//! Matrix product with bias and activation.

use rayon::prelude::*;

use super::call::Call;
use super::elementwise::{gelu_of, gelu_tanh_of};
use super::few_rows;
use super::gemm::{Matrix, Write, gemm_into};
use super::parallel::vectorized;
use super::real::Real;
use crate::graph::op::{Activation, Op};

/// Columns of a tile of the result, of which each is a task.
const TILE_COLUMNS: usize = 64;
/// Rows of a tile, and the tasks from which on such tiles are taken: high ones pack their operands less often, and too
/// few leave threads without work. On one core of Zen 5 2048³ with a transposed a runs at 186, 205, 214 GFLOP/s.
const TILE_ROWS: [(usize, usize); 3] = [(512, 32), (256, 16), (128, 0)];
/// The same for a transposed `b`, of which more is packed.
const TILE_ROWS_TRANSPOSED: usize = 512;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let Op::MatMul { transpose_a, transpose_b, bias, activation } = *call.op else {
        unreachable!("dispatched by family")
    };
    let matrix = |i: usize, transpose| {
        let &[rows, columns] = call.shape(i) else { panic!("a matrix has two dimensions") };
        Matrix::new(call.real(i), rows, columns).transposed_if(transpose)
    };
    let bias = bias.then(|| call.real(2));
    let (a, b) = (matrix(0, transpose_a), matrix(1, transpose_b));
    if few_rows::fits(call.op, call.shape(0), call.shape(1)) {
        let (m, n, k) = (a.rows(), b.columns(), b.rows());
        let product = few_rows::Product { a: call.real(0), b: call.real(1), m, n, k };
        let scratch = &mut *call.scratch.shared();
        let y = call.out(0);
        return few_rows::few_rows(product, transpose_b, bias, activation, scratch, y);
    }
    matmul(a, b, bias, activation, call.out(0));
}

/// y\[m, n\] = activation(a\[m, k\] b\[k, n\] + bias\[n\]), with `y` stored row by row.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul<T: Real>(
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    bias: Option<&[T]>,
    activation: Activation,
    y: &mut [T],
) {
    let (m, n) = (a.rows(), b.columns());
    assert_eq!(y.len(), m * n, "the result must be [rows of a, columns of b]");
    assert!(bias.is_none_or(|bias| bias.len() == n), "one bias a column");
    let tile_rows = if b.goes_down() { TILE_ROWS_TRANSPOSED } else { tile_rows(m, n) };
    let (down, across) = (m.div_ceil(tile_rows), n.div_ceil(TILE_COLUMNS));
    let y = Shared(y.as_mut_ptr());
    let tile = |tile: usize| {
        let (row, column) = (tile / across * tile_rows, tile % across * TILE_COLUMNS);
        let (rows, columns) = (tile_rows.min(m - row), TILE_COLUMNS.min(n - column));
        let (a, b) = (a.row_range(row, rows), b.column_range(column, columns));
        let bias = bias.map(|bias| &bias[column..column + columns]);
        // SAFETY: the tile lies within `y`, which has m rows of n, and no two tiles overlap.
        unsafe {
            let corner = y.at(row * n + column);
            gemm_into(a, b, corner, n, Write::Replace);
            for i in 0..rows {
                let y = std::slice::from_raw_parts_mut(corner.add(i * n), columns);
                finish_row(y, bias, activation);
            }
        }
    };
    if down * across == 1 {
        tile(0);
    } else {
        (0..down * across).into_par_iter().for_each(tile);
    }
}

/// The most rows of which a result still has tiles enough: by its shape alone.
fn tile_rows(m: usize, n: usize) -> usize {
    let tasks = |rows: usize| m.div_ceil(rows) * n.div_ceil(TILE_COLUMNS);
    let enough = TILE_ROWS.into_iter().find(|&(rows, least)| tasks(rows) >= least);
    enough.map_or(TILE_ROWS[2].0, |(rows, _)| rows)
}

/// Where tasks write their disjoint tiles.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: tasks only write to disjoint places behind the pointer.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `offset` must be within the memory.
    unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: as the caller vouches.
        unsafe { self.0.add(offset) }
    }
}

/// Adds a bias to each element of a row and applies an activation.
pub(super) fn finish_row<T: Real>(y: &mut [T], bias: Option<&[T]>, activation: Activation) {
    if let Some(bias) = bias {
        vectorized(
            #[inline(always)]
            || y.iter_mut().zip(bias).for_each(|(y, &bias)| *y += bias),
        );
    }
    activate(y, activation);
}

/// Applies an activation in place.
pub fn activate<T: Real>(y: &mut [T], activation: Activation) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => vectorized(
            #[inline(always)]
            || y.iter_mut().for_each(|y| *y = y.relu()),
        ),
        Activation::Gelu => y.iter_mut().for_each(|y| *y = gelu_of(*y)),
        Activation::GeluTanh => vectorized(
            #[inline(always)]
            || y.iter_mut().for_each(|y| *y = gelu_tanh_of(*y)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{convert, in_pools};
    use crate::testing::{assert_close, normal};

    /// Element (i, j) of a matrix stored row by row, maybe as its transpose.
    fn at(x: &[f64], rows: usize, columns: usize, transposed: bool, i: usize, j: usize) -> f64 {
        if transposed { x[j * rows + i] } else { x[i * columns + j] }
    }

    fn check<T: Real>(m: usize, n: usize, k: usize, tolerance: f64) {
        let (a, b, bias) = (normal(1, m * k), normal(2, k * n), normal(3, n));
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut expected = vec![0.0; m * n];
            for (i, row) in expected.chunks_mut(n).enumerate() {
                for (j, y) in row.iter_mut().enumerate() {
                    let product = |l| at(&a, m, k, ta, i, l) * at(&b, k, n, tb, l, j);
                    *y = ((0..k).map(product).sum::<f64>() + bias[j]).max(0.0);
                }
            }
            let (a, b, bias) = (convert::<T>(&a), convert::<T>(&b), convert::<T>(&bias));
            let a = if ta { Matrix::new(&a, k, m).transposed() } else { Matrix::new(&a, m, k) };
            let b = if tb { Matrix::new(&b, n, k).transposed() } else { Matrix::new(&b, k, n) };
            let mut y = vec![T::of(f64::NAN); m * n];
            matmul(a, b, Some(&bias), Activation::Relu, &mut y);
            assert_close(&y, &expected, tolerance * (k as f64).sqrt(), tolerance);
        }
    }

    #[test]
    fn matches_the_naive_product_in_all_transpositions() {
        for (m, n, k) in [
            (1, 1, 1),
            (1, 7, 3),
            (5, 1, 2),
            (3, 10, 17),
            (129, 65, 31),
            (64, 130, 1),
            (9, 37, 130),
            // Columns of a transposed b that fall into the same lines of a cache, in two panels.
            (3, 40, 512),
            // Tiles of 256 rows and of 512, with a rest.
            (300, 1000, 2),
            (1030, 1030, 2),
        ] {
            check::<f32>(m, n, k, 1e-6);
            check::<f64>(m, n, k, 1e-13);
        }
    }

    #[test]
    fn adds_no_bias_and_no_activation_unless_asked() {
        let (a, b) = ([1.0, 2.0], [3.0, -5.0]);
        let mut y = [0.0];
        matmul(Matrix::new(&a, 1, 2), Matrix::new(&b, 2, 1), None, Activation::Identity, &mut y);
        assert_eq!(y, [-7.0]);
    }

    #[test]
    fn threads_change_no_bit() {
        let (m, n, k) = (200, 300, 150);
        let (a, b) = (convert::<f32>(&normal(1, m * k)), convert::<f32>(&normal(2, k * n)));
        in_pools(|| {
            let mut y = vec![0.0; m * n];
            let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, k, n));
            matmul(a, b, None, Activation::Identity, &mut y);
            y
        });
    }
}
