//! Reduction of one dimension, and its opposite.

use rayon::prelude::*;

use super::call::Call;
use super::parallel::{min_items, sum, vectorized};
use super::real::Real;
use crate::graph::op::{Op, Reduction};

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let (x, y) = (call.real(0), call.out(0));
    match *call.op {
        Op::Reduce { reduction, axis } => {
            let (len, inner) = split(call.shape(0), axis);
            reduce(x, len, inner, reduction, y);
        }
        Op::Broadcast { axis, factor, .. } => {
            let (len, inner) = split(call.out_shape(0), axis);
            broadcast(x, len, inner, T::of(f64::from(factor)), y);
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// The length of a dimension and the product of those behind it.
fn split(shape: &[usize], axis: usize) -> (usize, usize) {
    (shape[axis], shape[axis + 1..].iter().product())
}

/// y\[outer, inner\] = Σ or mean over the middle of x\[outer, len, inner\].
pub fn reduce<T: Real>(x: &[T], len: usize, inner: usize, reduction: Reduction, y: &mut [T]) {
    let factor = match reduction {
        Reduction::Sum => T::ONE,
        Reduction::Mean => T::of(1.0 / len as f64),
    };
    let outer = y.par_chunks_mut(inner).zip(x.par_chunks(len * inner));
    outer.with_min_len(min_items(len * inner)).for_each(|(y, x)| {
        vectorized(
            #[inline(always)]
            || {
                if let [y] = y {
                    *y = factor * sum(x, |x| x);
                    return;
                }
                y.fill(T::ZERO);
                for x in x.chunks_exact(inner) {
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
                }
                y.iter_mut().for_each(|y| *y *= factor);
            },
        );
    });
}

/// y\[outer, len, inner\] = factor · x\[outer, inner\].
pub fn broadcast<T: Real>(x: &[T], len: usize, inner: usize, factor: T, y: &mut [T]) {
    let outer = y.par_chunks_mut(len * inner).zip(x.par_chunks(inner));
    outer.with_min_len(min_items(len * inner)).for_each(|(y, x)| {
        for y in y.chunks_mut(inner) {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = factor * x);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::run_op;
    use crate::testing::{assert_close, normal};

    const SHAPES: [[usize; 3]; 5] = [[1, 1, 1], [5, 33, 1], [1, 7, 9], [4, 1, 3], [9, 50, 49]];

    #[test]
    fn reduce_matches_plain_loops() {
        for [outer, len, inner] in SHAPES {
            let x = normal(1, outer * len * inner);
            for (reduction, factor) in [(Reduction::Sum, 1.0), (Reduction::Mean, 1.0 / len as f64)]
            {
                let mut expected = vec![0.0; outer * inner];
                for (i, x) in x.iter().enumerate() {
                    expected[i / inner / len * inner + i % inner] += factor * x;
                }
                let op = Op::Reduce { reduction, axis: 1 };
                let shapes = ([vec![outer, len, inner]], [vec![outer, inner]]);
                let y = run_op::<f64>(op, &[&x], &shapes.0, &shapes.1);
                assert_close(&y[0], &expected, 1e-12, 1e-12);
                let y = run_op::<f32>(op, &[&x], &shapes.0, &shapes.1);
                assert_close(&y[0], &expected, 1e-5, 1e-5);
            }
        }
    }

    #[test]
    fn broadcast_matches_plain_loops() {
        for [outer, len, inner] in SHAPES {
            let x = normal(1, outer * inner);
            let expected: Vec<f64> = (0..outer * len * inner)
                .map(|i| -0.5 * x[i / inner / len * inner + i % inner])
                .collect();
            let op = Op::Broadcast { axis: 1, len, factor: -0.5 };
            let shapes = ([vec![outer, inner]], [vec![outer, len, inner]]);
            let y = run_op::<f64>(op, &[&x], &shapes.0, &shapes.1);
            assert_close(&y[0], &expected, 1e-15, 0.0);
        }
    }
}
