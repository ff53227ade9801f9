//! Root mean square norm over the last dimension (Zhang and Sennrich, 2019).

use rayon::prelude::*;

use super::bias::column_sums;
use super::call::Call;
use super::parallel::{min_items, sum, sum2, vectorized};
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    match *call.op {
        Op::RmsNorm { eps } => {
            let eps = T::of(f64::from(eps));
            rms_norm(call.real(0), call.real(1), eps, call.out(0), call.out(1));
        }
        Op::RmsNormInputGrad => {
            let [dy, x, gamma, rstd] = [0, 1, 2, 3].map(|i| call.real(i));
            rms_norm_input_grad(dy, x, gamma, rstd, call.out(0));
        }
        Op::RmsNormParamGrad => {
            let [dy, x, rstd] = [0, 1, 2].map(|i| call.real(i));
            let (dgamma, d) = (call.out(0), call.out_shape(0)[0]);
            column_sums(dy, d, dgamma, |i, dy| dy * x[i] * rstd[i / d]);
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// y\[rows, d\] = gamma · x · rstd, where rstd is one over the root of the mean square of each row.
pub fn rms_norm<T: Real>(x: &[T], gamma: &[T], eps: T, y: &mut [T], rstd: &mut [T]) {
    let d = gamma.len();
    let rows = y.par_chunks_mut(d).zip(rstd.par_iter_mut()).zip(x.par_chunks(d));
    rows.with_min_len(min_items(d)).for_each(|((y, rstd), x)| {
        vectorized(
            #[inline(always)]
            || {
                let square = sum(x, |x| x * x) / T::of(d as f64);
                *rstd = T::ONE / (square + eps).sqrt();
                let rstd = *rstd;
                for ((y, &x), &gamma) in y.iter_mut().zip(x).zip(gamma) {
                    *y = x * rstd * gamma;
                }
            },
        );
    });
}

/// dx = rstd · (g - x · rstd² · mean of g · x) in each row, where g = gamma · dy.
pub fn rms_norm_input_grad<T: Real>(dy: &[T], x: &[T], gamma: &[T], rstd: &[T], dx: &mut [T]) {
    let d = gamma.len();
    let rows = dx.par_chunks_mut(d).zip(dy.par_chunks(d).zip(x.par_chunks(d)));
    let rows = rows.zip(rstd.par_iter());
    rows.with_min_len(min_items(d)).for_each(|((dx, (dy, x)), &rstd)| {
        vectorized(
            #[inline(always)]
            || {
                // Until the last line dx holds g.
                for (dx, (&dy, &gamma)) in dx.iter_mut().zip(dy.iter().zip(gamma)) {
                    *dx = dy * gamma;
                }
                let slope = rstd * rstd * sum2(dx, x, |g, x| g * x) / T::of(d as f64);
                for (dx, &x) in dx.iter_mut().zip(x) {
                    *dx = rstd * (*dx - x * slope);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{in_pools, run_op};
    use crate::testing::{assert_close, dot, finite_difference, normal};

    const EPS: f32 = 1e-3;
    const CASES: [[usize; 2]; 5] = [[1, 1], [1, 5], [7, 16], [3, 65], [40, 130]];

    fn naive(x: &[f64], gamma: &[f64]) -> [Vec<f64>; 2] {
        let d = gamma.len();
        let [mut y, mut rstds] = [(); 2].map(|()| Vec::new());
        for row in x.chunks(d) {
            let square = row.iter().map(|x| x * x).sum::<f64>() / d as f64;
            let rstd = 1.0 / (square + f64::from(EPS)).sqrt();
            y.extend((0..d).map(|i| row[i] * rstd * gamma[i]));
            rstds.push(rstd);
        }
        [y, rstds]
    }

    fn check<T: Real>([rows, d]: [usize; 2], tolerance: f64) {
        let (x, gamma) = (normal(1, rows * d), normal(2, d));
        let (shapes, outputs) = ([vec![rows, d], vec![d]], [vec![rows, d], vec![rows]]);
        let found = run_op::<T>(Op::RmsNorm { eps: EPS }, &[&x, &gamma], &shapes, &outputs);
        for (found, expected) in found.iter().zip(naive(&x, &gamma)) {
            assert_close(found, &expected, tolerance, tolerance);
        }
    }

    #[test]
    fn forward_matches_plain_loops() {
        for case in CASES {
            check::<f32>(case, 1e-5);
            check::<f64>(case, 1e-12);
        }
    }

    fn grads<T: Real>([rows, d]: [usize; 2]) -> [Vec<T>; 2] {
        let (x, gamma, dy) = (normal(1, rows * d), normal(2, d), normal(4, rows * d));
        let [_, rstd] = naive(&x, &gamma);
        let (row, matrix) = (vec![d], vec![rows, d]);
        let shapes = [matrix.clone(), matrix.clone(), row.clone(), vec![rows]];
        let op = Op::RmsNormInputGrad;
        let outputs = std::slice::from_ref(&matrix);
        let dx = run_op::<T>(op, &[&dy, &x, &gamma, &rstd], &shapes, outputs).remove(0);
        let shapes = [matrix.clone(), matrix, vec![rows]];
        let dgamma = run_op::<T>(Op::RmsNormParamGrad, &[&dy, &x, &rstd], &shapes, &[row]);
        [dx, dgamma.into_iter().next().expect("an output")]
    }

    #[test]
    fn gradients_match_finite_differences_of_the_plain_loops() {
        for [rows, d] in CASES.into_iter().take(4) {
            let (x, gamma, dy) = (normal(1, rows * d), normal(2, d), normal(4, rows * d));
            let loss = |x: &[f64], gamma: &[f64]| dot(&naive(x, gamma)[0], &dy);
            let [dx, dgamma] = grads::<f64>([rows, d]);
            assert_close(&dx, &finite_difference(&x, |x| loss(x, &gamma)), 1e-6, 1e-6);
            let expected = finite_difference(&gamma, |gamma| loss(&x, gamma));
            assert_close(&dgamma, &expected, 1e-7, 1e-7);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        in_pools(|| grads::<f32>([40, 130]).concat());
    }
}
