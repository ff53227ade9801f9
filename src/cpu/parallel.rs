//! Loops over elements, in parallel and vectorised, whose result does not depend on the number of
//! threads: work is cut by its shape alone, and sums are taken in a fixed order.

use std::sync::LazyLock;

use rayon::prelude::*;

use super::real::Real;

/// Elements of one task: enough to pay for handing it to another thread (some microseconds), few enough
/// to lie in a core's nearest cache.
pub const CHUNK: usize = 8192;

/// Sums are taken in this many interleaved parts, which map to vector lanes.
const LANES: usize = 16;

/// The vector instructions of this processor.
static ARCH: LazyLock<pulp::Arch> = LazyLock::new(pulp::Arch::new);

/// Runs a loop compiled for the best vector instructions this processor has.
#[inline(always)]
pub fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    ARCH.dispatch(work)
}

/// Runs what names its registers itself.
#[inline(always)]
pub fn with_registers<W: pulp::WithSimd>(work: W) -> W::Output {
    ARCH.dispatch(work)
}

/// Whether registers hold more than a number.
pub fn has_vectors() -> bool {
    !matches!(*ARCH, pulp::Arch::Scalar)
}

/// y = f(x), element by element.
pub fn map<T: Real>(x: &[T], y: &mut [T], f: impl Fn(T) -> T + Sync + Send) {
    let work = |(y, x): (&mut [T], &[T])| {
        vectorized(
            #[inline(always)]
            || y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x)),
        );
    };
    if y.len() <= CHUNK {
        return work((y, x));
    }
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(work);
}

/// y = f(a, b), element by element.
pub fn map2<T: Real>(a: &[T], b: &[T], y: &mut [T], f: impl Fn(T, T) -> T + Sync + Send) {
    let work = |(y, (a, b)): (&mut [T], (&[T], &[T]))| {
        vectorized(
            #[inline(always)]
            || {
                for (y, (&a, &b)) in y.iter_mut().zip(a.iter().zip(b)) {
                    *y = f(a, b);
                }
            },
        );
    };
    if y.len() <= CHUNK {
        return work((y, (a, b)));
    }
    let inputs = a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK));
    y.par_chunks_mut(CHUNK).zip(inputs).for_each(work);
}

/// y = f(a, b, c), element by element.
pub fn map3<T: Real>([a, b, c]: [&[T]; 3], y: &mut [T], f: impl Fn(T, T, T) -> T + Sync + Send) {
    let chunks = a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)).zip(c.par_chunks(CHUNK));
    y.par_chunks_mut(CHUNK).zip(chunks).for_each(|(y, ((a, b), c))| {
        vectorized(
            #[inline(always)]
            || {
                for (y, ((&a, &b), &c)) in y.iter_mut().zip(a.iter().zip(b).zip(c)) {
                    *y = f(a, b, c);
                }
            },
        );
    });
}

/// How many items of `len` elements a task should take at least.
pub fn min_items(len: usize) -> usize {
    CHUNK.div_ceil(len.max(1))
}

/// Σ f(xᵢ), always in the same order.
#[inline(always)]
pub fn sum<T: Real>(x: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f(x);
    }
    fold(lanes)
}

/// The largest, or what is below every number if there is none; NaNs are passed over.
#[inline(always)]
pub fn max<T: Real>(x: &[T]) -> T {
    let larger = |a: T, b: T| if b > a { b } else { a };
    let mut lanes = [T::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    lanes.iter().chain(rest).fold(T::NEG_INFINITY, |most, &x| larger(most, x))
}

/// Σ f(aᵢ, bᵢ), always in the same order.
#[inline(always)]
pub fn sum2<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for (lane, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += f(a, b);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(rest) {
        *lane += f(a, b);
    }
    fold(lanes)
}

/// Adds up lanes by halves.
#[inline(always)]
fn fold<T: Real>(mut lanes: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, dot, normal};

    #[test]
    fn sums_and_maps_match_plain_loops_at_every_tail() {
        for len in [0, 1, 15, 16, 17, 33, CHUNK, CHUNK + 1, 3 * CHUNK - 1] {
            let (a, b) = (normal(1, len), normal(2, len));
            let total: f64 = a.iter().map(|x| x * x).sum();
            let most = a.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert_eq!(max(&a), most);
            assert_close(&[sum(&a, |x| x * x)], &[total], 1e-9, 1e-12);
            assert_close(&[sum2(&a, &b, |a, b| a * b)], &[dot(&a, &b)], 1e-9, 1e-12);
            let mut y = vec![0.0; len];
            map(&a, &mut y, |x| 2.0 * x);
            assert_eq!(y, a.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
            map2(&a, &b, &mut y, |a, b| a - b);
            let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
            assert_eq!(y, expected);
            map3([&a, &b, &expected], &mut y, |a, b, difference| a - b - difference);
            assert_eq!(y, vec![0.0; len]);
        }
    }
}
