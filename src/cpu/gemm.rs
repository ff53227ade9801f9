//! The matrix product below all twins, by the `gemm` crate, always on one thread: twins divide the work
//! themselves, by shape alone, so that the order of every sum is the same for any number of threads.
//!
//! On one core with AVX-512, `mlp.0` forward (128 × 512 × 784) runs at 100 GFLOP/s with `gemm` 0.19, 106 with
//! `faer` 0.24 and 81 with `matrixmultiply` 0.3 (`ndarray`'s own); the weight gradient of `cnn.0` (16 × 9 × 784)
//! at 89, 41 and 15. So `gemm` it is.

use super::real::Real;

/// A matrix to read, with any strides.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T: Real> Matrix<'a, T> {
    /// `rows` × `columns`, stored row by row.
    ///
    /// # Panics
    /// When `data` is too short.
    pub fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert!(data.len() >= rows * columns, "a matrix of {rows} × {columns} must be there");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The same memory read as its transpose.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Transposed if asked for.
    pub fn transposed_if(self, transpose: bool) -> Self {
        if transpose { self.transposed() } else { self }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether columns, not rows, are contiguous: a transpose.
    pub fn goes_down(&self) -> bool {
        self.row_stride < self.column_stride
    }

    /// `count` rows from `first` on.
    pub fn row_range(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.rows, "rows within the matrix");
        Self { data: &self.data[first * self.row_stride..], rows: count, ..self }
    }

    /// `count` columns from `first` on.
    pub fn column_range(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.columns, "columns within the matrix");
        Self { data: &self.data[first * self.column_stride..], columns: count, ..self }
    }
}

/// Whether a product replaces what is there or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// y = a b.
    Replace,
    /// y += a b.
    Add,
}

/// y = a b or y += a b, with `y` stored row by row.
///
/// # Panics
/// When the shapes do not fit.
pub fn gemm<T: Real>(a: Matrix<'_, T>, b: Matrix<'_, T>, y: &mut [T], write: Write) {
    assert_eq!(y.len(), a.rows * b.columns, "the result must be [rows of a, columns of b]");
    // SAFETY: `y` is borrowed exclusively and holds rows × columns elements, row by row.
    unsafe { gemm_into(a, b, y.as_mut_ptr(), b.columns, write) }
}

/// Columns of a panel, and the inner length from which panels pay.
const PANEL_COLUMNS: usize = 32;
const PANEL_DEPTH: usize = 128;
/// Columns that stand a multiple of so many bytes apart fall into the same few lines of a cache.
const ALIASED_BYTES: usize = 2048;

/// As [`gemm()`], into rows that stand `row_stride` elements apart.
///
/// # Safety
/// Row `i` of the result, `y + i * row_stride ..` for as many elements as `b` has columns, must be
/// valid for reads and writes by this thread alone.
pub unsafe fn gemm_into<T: Real>(
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    y: *mut T,
    row_stride: usize,
    write: Write,
) {
    assert_eq!(a.columns, b.rows, "inner lengths of a product");
    let aliased = (b.column_stride * size_of::<T>()).is_multiple_of(ALIASED_BYTES);
    if !b.goes_down() || !aliased || b.rows < PANEL_DEPTH {
        // SAFETY: as the caller vouches.
        return unsafe { panel(a, b, y, row_stride, write) };
    }
    // Panels so narrow that all of their columns stay in the cache, and two registers of AVX-512 wide, for
    // with one of them a kernel waits for its loads: 128 × 512 × 512 on one core of Zen 5 runs at 161 GFLOP/s
    // in one piece, 126 in panels of 16 columns, 206 of 32, 184 of 48.
    for first in (0..b.columns).step_by(PANEL_COLUMNS) {
        let b = b.column_range(first, PANEL_COLUMNS.min(b.columns - first));
        // SAFETY: these columns are some of those that the caller vouches for.
        unsafe { panel(a, b, y.add(first), row_stride, write) };
    }
}

/// # Safety
/// As [`gemm_into`].
unsafe fn panel<T: Real>(
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    y: *mut T,
    row_stride: usize,
    write: Write,
) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: `Matrix` keeps every element it describes within its slice, and the caller vouches for `y`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y,
            1,
            row_stride as isize,
            write == Write::Add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::ONE, // factor on what is there
            T::ONE, // factor on the product
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
