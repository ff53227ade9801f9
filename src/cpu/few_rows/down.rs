//! A matrix that is stored row by row: sums go down its columns. A task takes a part of its rows and a tile of its columns,
//! a strip of rows at a time; the sums of a tile stay in the nearest cache, and the parts are added afterwards.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Product, ROWS_MAX, ask_for, finish_row, lanes, registers, vectorized, with_registers};
use crate::cpu::real::Real;
use crate::graph::op::Activation;

/// Parts of the rows, whatever the number of threads.
const PARTS: usize = 8;
/// Columns of a tile, as many as their sums find room for in a core's second cache.
const TILE: usize = 2304;
/// Rows that are read side by side.
const STRIP: usize = 8;
/// Registers of each row of sums at a time.
const BLOCK: usize = 2;
/// Columns of a strip between what is asked for and what is worked on.
const AHEAD: usize = 128;

/// Rows of a part.
fn part_rows(k: usize) -> usize {
    k.div_ceil(PARTS).next_multiple_of(STRIP)
}

/// Elements between two rows of sums: no power of two, at which all rows would fall into the same lines of a cache.
fn stride(n: usize) -> usize {
    TILE.min(n).next_multiple_of(16) + 16
}

/// Tasks of all parts and tiles.
fn tasks(n: usize, k: usize) -> usize {
    k.div_ceil(part_rows(k)) * n.div_ceil(TILE)
}

pub(super) fn scratch_len(m: usize, n: usize, k: usize) -> usize {
    tasks(n, k) * m * stride(n)
}

pub(super) fn product<T: Real>(
    product: Product<'_, T>,
    bias: Option<&[T]>,
    activation: Activation,
    scratch: &mut [T],
    y: &mut [T],
) {
    let Product { m, n, k, .. } = product;
    let (len, across) = (m * stride(n), n.div_ceil(TILE));
    let sums = &mut scratch[..tasks(n, k) * len];
    sums.par_chunks_exact_mut(len).enumerate().for_each(|(task, sums)| {
        let (row, column) = (task / across * part_rows(k), task % across * TILE);
        let (rows, columns) = (part_rows(k).min(k - row), TILE.min(n - column));
        with_registers(Tile { product, row, rows, column, columns, sums });
    });
    let sums = &*sums;
    y.par_chunks_exact_mut(n).enumerate().for_each(|(i, y)| {
        y.par_chunks_mut(TILE).enumerate().for_each(|(tile, y)| {
            let parts = sums.chunks_exact(len).skip(tile).step_by(across);
            let width = y.len();
            let mut parts = parts.map(|sums| &sums[i * stride(n)..][..width]);
            if let Some(part) = parts.next() {
                y.copy_from_slice(part);
            }
            parts.for_each(|part| add(y, part));
            finish_row(y, bias.map(|bias| &bias[tile * TILE..][..y.len()]), activation);
        });
    });
}

fn add<T: Real>(y: &mut [T], x: &[T]) {
    vectorized(
        #[inline(always)]
        || y.iter_mut().zip(x).for_each(|(y, &x)| *y += x),
    );
}

/// Some rows of a matrix, some columns of them, and their sums `[m, stride]`.
struct Tile<'a, T> {
    product: Product<'a, T>,
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
    sums: &'a mut [T],
}

impl<T: Real> WithSimd for Tile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.sums.fill(T::ZERO);
        let end = self.row + self.rows;
        for row in (self.row..end).step_by(STRIP) {
            self.add_strip(simd, row, STRIP.min(end - row));
        }
    }
}

impl<T: Real> Tile<'_, T> {
    /// Adds what a few rows of the matrix give.
    #[inline(always)]
    fn add_strip<S: Simd>(&mut self, simd: S, row: usize, rows: usize) {
        let Product { a, b, m, n, k } = self.product;
        let mut factors = [[T::ZERO; ROWS_MAX]; STRIP];
        for (i, a) in a.chunks_exact(k).enumerate() {
            for (factors, &a) in factors.iter_mut().zip(&a[row..row + rows]) {
                factors[i] = a;
            }
        }
        let (factors, b) = (&factors[..rows], &b[row * n + self.column..]);
        let stride = stride(n);
        let block = BLOCK * lanes::<T, S>();
        let whole = self.columns / block * block;
        for column in (0..whole).step_by(block) {
            self.ask_ahead(b, column, block);
            let (b, mut i) = (&b[column..], 0);
            while i < m {
                let sums = &mut self.sums[i * stride + column..];
                i += match m - i {
                    8.. => add_block::<T, S, 8>(simd, factors, i, b, [n, stride], sums),
                    4.. => add_block::<T, S, 4>(simd, factors, i, b, [n, stride], sums),
                    2.. => add_block::<T, S, 2>(simd, factors, i, b, [n, stride], sums),
                    _ => add_block::<T, S, 1>(simd, factors, i, b, [n, stride], sums),
                };
            }
        }
        for (factors, b) in factors.iter().zip(b.chunks(n)) {
            for (&factor, sums) in factors.iter().zip(self.sums.chunks_exact_mut(stride)) {
                let rest = sums[..self.columns].iter_mut().zip(&b[..self.columns]).skip(whole);
                rest.for_each(|(sum, &b)| *sum += factor * b);
            }
        }
    }

    /// Asks for what is some columns behind a block of a strip, or as far in the next strip.
    #[inline(always)]
    fn ask_ahead(&self, strip: &[T], column: usize, block: usize) {
        let n = self.product.n;
        let ahead = match column + AHEAD {
            ahead if ahead < self.columns => ahead,
            ahead => ahead - self.columns + STRIP * n,
        };
        let bytes = block * size_of::<T>();
        (0..STRIP).for_each(|row| ask_for(strip.as_ptr().wrapping_add(row * n + ahead), bytes));
    }
}

/// Adds what a block of columns gives to M rows of sums, from row `i` on; returns M. Rows of the matrix and of sums are `n` and
/// `stride` apart.
#[inline(always)]
fn add_block<T: Real, S: Simd, const M: usize>(
    simd: S,
    factors: &[[T; ROWS_MAX]],
    i: usize,
    b: &[T],
    [n, stride]: [usize; 2],
    sums: &mut [T],
) -> usize {
    let mut block: [_; M] = std::array::from_fn(|i| load::<T, S>(&sums[i * stride..]));
    for (l, factors) in factors.iter().enumerate() {
        let b = load::<T, S>(&b[l * n..]);
        for (sums, &factor) in block.iter_mut().zip(&factors[i..i + M]) {
            let factor = T::splat(simd, factor);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = T::multiply_add(simd, [factor, b, *sum]);
            }
        }
    }
    for (i, block) in block.iter().enumerate() {
        let sums = &mut sums[i * stride..][..BLOCK * lanes::<T, S>()];
        bytemuck::cast_slice_mut(sums).copy_from_slice(block);
    }
    M
}

/// The registers of a block.
#[inline(always)]
fn load<T: Real, S: Simd>(x: &[T]) -> [T::Lanes<S>; BLOCK] {
    let x = registers::<T, S>(x, BLOCK);
    std::array::from_fn(|j| x[j])
}
