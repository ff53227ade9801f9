//! Root mean square norm over the last dimension (Zhang and Sennrich, 2019).

use rayon::prelude::*;

use super::bias::column_sums;
use super::call::Call;
use super::layer_norm::add_row;
use super::parallel::{min_items, sum, sum2, vectorized};
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    match *call.op {
        Op::RmsNorm { eps, residual } => {
            let [x, gamma] = [0, 1].map(|i| call.real(i));
            let (eps, y, rstd) = (T::of(f64::from(eps)), call.out(0), call.out(1));
            if residual {
                let half = call.half_outputs.contains(&2);
                let (residual, sum) = (call.real(2), call.out(2));
                add_rms_norm([x, residual], gamma, eps, y, rstd, sum, half);
            } else {
                rms_norm(x, gamma, eps, y, rstd);
            }
        }
        Op::RmsNormInputGrad { residual } => {
            let [dy, x, gamma, rstd] = [0, 1, 2, 3].map(|i| call.real(i));
            let residual = residual.then(|| call.real(4));
            rms_norm_input_grad([dy, x], gamma, rstd, residual, call.out(0));
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
            || *rstd = norm_row(x, gamma, eps, y),
        );
    });
}

/// [`rms_norm`] of the sum of x and a residual, which is written too; rounded to 16 bits first where it is stored in so many.
pub fn add_rms_norm<T: Real>(
    [x, residual]: [&[T]; 2],
    gamma: &[T],
    eps: T,
    y: &mut [T],
    rstd: &mut [T],
    sum: &mut [T],
    half: bool,
) {
    let d = gamma.len();
    let outputs = y.par_chunks_mut(d).zip(sum.par_chunks_mut(d)).zip(rstd.par_iter_mut());
    let rows = outputs.zip(x.par_chunks(d).zip(residual.par_chunks(d)));
    rows.with_min_len(min_items(d)).for_each(|(((y, sum), rstd), (x, residual))| {
        vectorized(
            #[inline(always)]
            || {
                add_row([x, residual], sum, half);
                *rstd = norm_row(sum, gamma, eps, y);
            },
        );
    });
}

/// The norm of a row, and one over the root of its mean square.
#[inline(always)]
fn norm_row<T: Real>(x: &[T], gamma: &[T], eps: T, y: &mut [T]) -> T {
    let square = sum(x, |x| x * x) / T::of(x.len() as f64);
    let rstd = T::ONE / (square + eps).sqrt();
    for ((y, &x), &gamma) in y.iter_mut().zip(x).zip(gamma) {
        *y = x * rstd * gamma;
    }
    rstd
}

/// dx = rstd · (g - x · rstd² · mean of g · x) in each row, where g = gamma · dy; plus the residual, if there is one.
pub fn rms_norm_input_grad<T: Real>(
    [dy, x]: [&[T]; 2],
    gamma: &[T],
    rstd: &[T],
    residual: Option<&[T]>,
    dx: &mut [T],
) {
    let d = gamma.len();
    let rows = dx.par_chunks_mut(d).zip(dy.par_chunks(d).zip(x.par_chunks(d)));
    let rows = rows.zip(rstd.par_iter()).enumerate();
    rows.with_min_len(min_items(d)).for_each(|(i, ((dx, (dy, x)), &rstd))| {
        vectorized(
            #[inline(always)]
            || {
                // At first dx holds g.
                for (dx, (&dy, &gamma)) in dx.iter_mut().zip(dy.iter().zip(gamma)) {
                    *dx = dy * gamma;
                }
                let slope = rstd * rstd * sum2(dx, x, |g, x| g * x) / T::of(d as f64);
                for (dx, &x) in dx.iter_mut().zip(x) {
                    *dx = rstd * (*dx - x * slope);
                }
                if let Some(residual) = residual {
                    let residual = &residual[i * d..];
                    dx.iter_mut().zip(residual).for_each(|(dx, &residual)| *dx += residual);
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

    /// With a residual, all outputs.
    fn forward<T: Real>([rows, d]: [usize; 2]) -> Vec<Vec<T>> {
        let (x, gamma, residual) = (normal(1, rows * d), normal(2, d), normal(5, rows * d));
        let shapes = [vec![rows, d], vec![d], vec![rows, d]];
        let outputs = [vec![rows, d], vec![rows], vec![rows, d]];
        let op = Op::RmsNorm { eps: EPS, residual: true };
        run_op::<T>(op, &[&x, &gamma, &residual], &shapes, &outputs)
    }

    fn check<T: Real>([rows, d]: [usize; 2], tolerance: f64) {
        let (x, gamma) = (normal(1, rows * d), normal(2, d));
        let (shapes, outputs) = ([vec![rows, d], vec![d]], [vec![rows, d], vec![rows]]);
        let op = Op::RmsNorm { eps: EPS, residual: false };
        let found = run_op::<T>(op, &[&x, &gamma], &shapes, &outputs);
        assert_eq!(found.len(), 2);
        for (found, expected) in found.iter().zip(naive(&x, &gamma)) {
            assert_close(found, &expected, tolerance, tolerance);
        }
        let sum: Vec<f64> = x.iter().zip(normal(5, rows * d)).map(|(x, y)| x + y).collect();
        let [y, rstd] = naive(&sum, &gamma);
        let found = forward::<T>([rows, d]);
        assert_eq!(found.len(), 3);
        for (found, expected) in found.iter().zip([y, rstd, sum]) {
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

    /// Of x and gamma; the first without a residual and with one.
    fn grads<T: Real>([rows, d]: [usize; 2]) -> [Vec<T>; 3] {
        let (x, gamma, dy) = (normal(1, rows * d), normal(2, d), normal(4, rows * d));
        let [_, rstd] = naive(&x, &gamma);
        let (row, matrix) = (vec![d], vec![rows, d]);
        let residual = normal(5, rows * d);
        let shapes = [&matrix, &matrix, &row, &vec![rows], &matrix].map(Vec::clone);
        let inputs = [&dy[..], &x, &gamma, &rstd, &residual];
        let [dx, sum] = [false, true].map(|residual| {
            let op = Op::RmsNormInputGrad { residual };
            let bound = if residual { 5 } else { 4 };
            let outputs = std::slice::from_ref(&matrix);
            run_op::<T>(op, &inputs[..bound], &shapes[..bound], outputs).remove(0)
        });
        let shapes = [matrix.clone(), matrix, vec![rows]];
        let dgamma = run_op::<T>(Op::RmsNormParamGrad, &[&dy, &x, &rstd], &shapes, &[row]);
        [dx, sum, dgamma.into_iter().next().expect("an output")]
    }

    #[test]
    fn gradients_match_finite_differences_of_the_plain_loops() {
        for [rows, d] in CASES.into_iter().take(4) {
            let (x, gamma, dy) = (normal(1, rows * d), normal(2, d), normal(4, rows * d));
            let loss = |x: &[f64], gamma: &[f64]| dot(&naive(x, gamma)[0], &dy);
            let [dx, sum, dgamma] = grads::<f64>([rows, d]);
            let expected = finite_difference(&x, |x| loss(x, &gamma));
            assert_close(&dx, &expected, 1e-6, 1e-6);
            let expected: Vec<f64> =
                expected.iter().zip(normal(5, rows * d)).map(|(dx, other)| dx + other).collect();
            assert_close(&sum, &expected, 1e-6, 1e-6);
            let expected = finite_difference(&gamma, |gamma| loss(&x, gamma));
            assert_close(&dgamma, &expected, 1e-7, 1e-7);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        in_pools(|| grads::<f32>([400, 130]).concat());
        in_pools(|| forward::<f32>([400, 130]).concat());
    }
}
