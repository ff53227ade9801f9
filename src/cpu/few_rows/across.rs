//! A matrix that is stored as its transpose: sums go along its rows, of which a task takes a tile, some at a time.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Product, ROWS_MAX, ask_for, finish_row, lanes, registers, with_registers};
use crate::cpu::real::Real;
use crate::graph::op::Activation;

/// Rows of the transpose, columns of the result, of a task.
const TILE: usize = 64;
/// Rows of the transpose that are read side by side.
const STRIP: usize = 4;
/// Elements of a row between what is asked for and what is worked on.
const AHEAD: usize = 256;

pub(super) fn product<T: Real>(
    Product { a, b, n, k, .. }: Product<'_, T>,
    bias: Option<&[T]>,
    activation: Activation,
    y: &mut [T],
) {
    let mut tiles: Vec<[&mut [T]; ROWS_MAX]> = Vec::new();
    tiles.resize_with(n.div_ceil(TILE), Default::default);
    for (i, y) in y.chunks_exact_mut(n).enumerate() {
        tiles.iter_mut().zip(y.chunks_mut(TILE)).for_each(|(tile, y)| tile[i] = y);
    }
    tiles.into_par_iter().zip(b.par_chunks(TILE * k)).enumerate().for_each(|(tile, (mut y, b))| {
        with_registers(Tile { a, b, k, y: &mut y });
        for y in y.into_iter().filter(|y| !y.is_empty()) {
            finish_row(y, bias.map(|bias| &bias[tile * TILE..][..y.len()]), activation);
        }
    });
}

/// Some rows of a transpose, and what they give in each row of the result.
struct Tile<'a, 'y, T> {
    a: &'a [T],
    b: &'a [T],
    k: usize,
    y: &'a mut [&'y mut [T]],
}

impl<T: Real> WithSimd for Tile<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for (strip, b) in self.b.chunks(STRIP * self.k).enumerate() {
            let column = strip * STRIP;
            if b.len() == STRIP * self.k {
                self.strip::<S, STRIP>(simd, b, column);
                continue;
            }
            for (row, b) in b.chunks_exact(self.k).enumerate() {
                self.strip::<S, 1>(simd, b, column + row);
            }
        }
    }
}

impl<T: Real> Tile<'_, '_, T> {
    /// What N rows give, in columns from this one on. The first rows of the result ask for what follows.
    #[inline(always)]
    fn strip<S: Simd, const N: usize>(&mut self, simd: S, b: &[T], column: usize) {
        let (m, mut i) = (self.a.len() / self.k, 0);
        while i < m {
            i += match (m - i, i) {
                (4.., 0) => self.block::<S, N, 4, true>(simd, b, column, i),
                (2.., 0) => self.block::<S, N, 2, true>(simd, b, column, i),
                (_, 0) => self.block::<S, N, 1, true>(simd, b, column, i),
                (4.., _) => self.block::<S, N, 4, false>(simd, b, column, i),
                (2.., _) => self.block::<S, N, 2, false>(simd, b, column, i),
                _ => self.block::<S, N, 1, false>(simd, b, column, i),
            };
        }
    }

    /// What N rows give in M rows of the result, from row `i` on; returns M.
    #[inline(always)]
    fn block<S: Simd, const N: usize, const M: usize, const ASKS: bool>(
        &mut self,
        simd: S,
        b: &[T],
        column: usize,
        i: usize,
    ) -> usize {
        let (k, lanes) = (self.k, lanes::<T, S>());
        let a: [&[T]; M] = std::array::from_fn(|j| &self.a[(i + j) * k..][..k]);
        let b: [&[T]; N] = std::array::from_fn(|j| &b[j * k..][..k]);
        let mut sums = [[T::splat(simd, T::ZERO); N]; M];
        let whole = k / lanes;
        let (a_lanes, b_lanes) =
            (a.map(|a| registers::<T, S>(a, whole)), b.map(|b| registers::<T, S>(b, whole)));
        for l in 0..whole {
            if ASKS {
                let ahead = l * lanes + AHEAD;
                let ahead = if ahead < k { ahead } else { ahead + (N - 1) * k };
                b.iter().for_each(|b| ask_for(b.as_ptr().wrapping_add(ahead), 1));
            }
            let b = b_lanes.map(|b| b[l]);
            for (sums, a) in sums.iter_mut().zip(a_lanes) {
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = T::multiply_add(simd, [a[l], b, *sum]);
                }
            }
        }
        for ((sums, a), y) in sums.into_iter().zip(a).zip(&mut self.y[i..]) {
            for ((sums, b), y) in sums.into_iter().zip(b).zip(&mut y[column..]) {
                let rest = a[whole * lanes..].iter().zip(&b[whole * lanes..]);
                *y = rest.fold(T::total(simd, sums), |sum, (&a, &b)| sum + a * b);
            }
        }
        M
    }
}
