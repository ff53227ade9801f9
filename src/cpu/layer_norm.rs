//! Layer norm over the last dimension (Ba, Kiros and Hinton, 2016).

use rayon::prelude::*;

use super::bias::column_sums;
use super::call::Call;
use super::parallel::{min_items, sum, sum2, vectorized};
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    match *call.op {
        Op::LayerNorm { eps, residual } => {
            let [x, gamma, beta] = [0, 1, 2].map(|i| call.real(i));
            let (eps, y, stats) = (T::of(f64::from(eps)), call.out(0), [call.out(1), call.out(2)]);
            if residual {
                let half = call.half_outputs.contains(&3);
                let (residual, sum) = (call.real(3), call.out(3));
                add_layer_norm([x, residual], [gamma, beta], eps, y, stats, sum, half);
            } else {
                layer_norm(x, [gamma, beta], eps, y, stats);
            }
        }
        Op::LayerNormInputGrad { residual } => {
            let [dy, x, gamma, mean, rstd] = [0, 1, 2, 3, 4].map(|i| call.real(i));
            let residual = residual.then(|| call.real(5));
            layer_norm_input_grad([dy, x], gamma, [mean, rstd], residual, call.out(0));
        }
        Op::LayerNormParamGrad => {
            let [dy, x, mean, rstd] = [0, 1, 2, 3].map(|i| call.real(i));
            layer_norm_param_grad(dy, x, [mean, rstd], [call.out(0), call.out(1)]);
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// y\[rows, d\] = gamma · (x - mean) · rstd + beta, with mean and one over the standard deviation of each row.
pub fn layer_norm<T: Real>(
    x: &[T],
    affine: [&[T]; 2],
    eps: T,
    y: &mut [T],
    [mean, rstd]: [&mut [T]; 2],
) {
    let d = affine[0].len();
    let outputs = y.par_chunks_mut(d).zip(mean.par_iter_mut().zip(rstd));
    outputs.zip(x.par_chunks(d)).with_min_len(min_items(d)).for_each(|((y, (mean, rstd)), x)| {
        vectorized(
            #[inline(always)]
            || [*mean, *rstd] = norm_row(x, affine, eps, y),
        );
    });
}

/// [`layer_norm`] of the sum of x and a residual, which is written too; rounded to 16 bits first where it is stored in so many.
pub fn add_layer_norm<T: Real>(
    [x, residual]: [&[T]; 2],
    affine: [&[T]; 2],
    eps: T,
    y: &mut [T],
    [mean, rstd]: [&mut [T]; 2],
    sum: &mut [T],
    half: bool,
) {
    let d = affine[0].len();
    let stats = mean.par_iter_mut().zip(rstd);
    let outputs = y.par_chunks_mut(d).zip(sum.par_chunks_mut(d)).zip(stats);
    let rows = outputs.zip(x.par_chunks(d).zip(residual.par_chunks(d)));
    rows.with_min_len(min_items(d)).for_each(|(((y, sum), (mean, rstd)), (x, residual))| {
        vectorized(
            #[inline(always)]
            || {
                add_row([x, residual], sum, half);
                [*mean, *rstd] = norm_row(sum, affine, eps, y);
            },
        );
    });
}

/// A row of x + residual; rounded to 16 bits where it is stored in so many.
#[inline(always)]
pub(super) fn add_row<T: Real>([x, residual]: [&[T]; 2], sum: &mut [T], half: bool) {
    for (sum, (&x, &residual)) in sum.iter_mut().zip(x.iter().zip(residual)) {
        *sum = x + residual;
    }
    if half {
        T::round_to_half(sum);
    }
}

/// The norm of a row; its mean and one over its standard deviation.
#[inline(always)]
fn norm_row<T: Real>(x: &[T], [gamma, beta]: [&[T]; 2], eps: T, y: &mut [T]) -> [T; 2] {
    let count = T::of(x.len() as f64);
    let mean = sum(x, |x| x) / count;
    let var = sum(x, |x| (x - mean) * (x - mean)) / count;
    let rstd = T::ONE / (var + eps).sqrt();
    for ((y, &x), (&gamma, &beta)) in y.iter_mut().zip(x).zip(gamma.iter().zip(beta)) {
        *y = (x - mean) * rstd * gamma + beta;
    }
    [mean, rstd]
}

/// dx = rstd · (g - mean of g - x̂ · mean of g · x̂) in each row, where g = gamma · dy; plus the residual, if there is one.
pub fn layer_norm_input_grad<T: Real>(
    [dy, x]: [&[T]; 2],
    gamma: &[T],
    [mean, rstd]: [&[T]; 2],
    residual: Option<&[T]>,
    dx: &mut [T],
) {
    let d = gamma.len();
    let rows = dx.par_chunks_mut(d).zip(dy.par_chunks(d).zip(x.par_chunks(d)));
    let rows = rows.zip(mean.par_iter().zip(rstd)).enumerate();
    rows.with_min_len(min_items(d)).for_each(|(i, ((dx, (dy, x)), (&mean, &rstd)))| {
        vectorized(
            #[inline(always)]
            || {
                // At first dx holds g.
                for (dx, (&dy, &gamma)) in dx.iter_mut().zip(dy.iter().zip(gamma)) {
                    *dx = dy * gamma;
                }
                let count = T::of(d as f64);
                let mean_g = sum(dx, |g| g) / count;
                let slope = rstd * rstd * sum2(dx, x, |g, x| g * (x - mean)) / count;
                for (dx, &x) in dx.iter_mut().zip(x) {
                    *dx = rstd * (*dx - mean_g - (x - mean) * slope);
                }
                if let Some(residual) = residual {
                    let residual = &residual[i * d..];
                    dx.iter_mut().zip(residual).for_each(|(dx, &residual)| *dx += residual);
                }
            },
        );
    });
}

/// dgamma = Σ dy · x̂ and dbeta = Σ dy over the rows.
pub fn layer_norm_param_grad<T: Real>(
    dy: &[T],
    x: &[T],
    [mean, rstd]: [&[T]; 2],
    [dgamma, dbeta]: [&mut [T]; 2],
) {
    let d = dgamma.len();
    column_sums(dy, d, dgamma, |i, dy| dy * (x[i] - mean[i / d]) * rstd[i / d]);
    column_sums(dy, d, dbeta, |_, dy| dy);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{in_pools, run_op};
    use crate::testing::{assert_close, dot, finite_difference, normal};

    const EPS: f32 = 1e-3;
    const CASES: [[usize; 2]; 5] = [[1, 1], [1, 5], [7, 16], [3, 65], [40, 130]];

    fn naive(x: &[f64], gamma: &[f64], beta: &[f64]) -> [Vec<f64>; 3] {
        let d = gamma.len();
        let [mut y, mut means, mut rstds] = [(); 3].map(|()| Vec::new());
        for row in x.chunks(d) {
            let mean = row.iter().sum::<f64>() / d as f64;
            let var = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64;
            let rstd = 1.0 / (var + f64::from(EPS)).sqrt();
            y.extend((0..d).map(|i| (row[i] - mean) * rstd * gamma[i] + beta[i]));
            means.push(mean);
            rstds.push(rstd);
        }
        [y, means, rstds]
    }

    /// With a residual, all outputs.
    fn forward<T: Real>([rows, d]: [usize; 2]) -> Vec<Vec<T>> {
        let (x, gamma, beta) = (normal(1, rows * d), normal(2, d), normal(3, d));
        let residual = normal(5, rows * d);
        let shapes = [vec![rows, d], vec![d], vec![d], vec![rows, d]];
        let outputs = [vec![rows, d], vec![rows], vec![rows], vec![rows, d]];
        let op = Op::LayerNorm { eps: EPS, residual: true };
        run_op::<T>(op, &[&x, &gamma, &beta, &residual], &shapes, &outputs)
    }

    fn check<T: Real>([rows, d]: [usize; 2], tolerance: f64) {
        let (x, gamma, beta) = (normal(1, rows * d), normal(2, d), normal(3, d));
        let shapes = [vec![rows, d], vec![d], vec![d]];
        let outputs = [vec![rows, d], vec![rows], vec![rows]];
        let op = Op::LayerNorm { eps: EPS, residual: false };
        let found = run_op::<T>(op, &[&x, &gamma, &beta], &shapes, &outputs);
        assert_eq!(found.len(), 3);
        for (found, expected) in found.iter().zip(naive(&x, &gamma, &beta)) {
            assert_close(found, &expected, tolerance, tolerance);
        }
        let sum: Vec<f64> = x.iter().zip(normal(5, rows * d)).map(|(x, y)| x + y).collect();
        let [y, mean, rstd] = naive(&sum, &gamma, &beta);
        let found = forward::<T>([rows, d]);
        assert_eq!(found.len(), 4);
        for (found, expected) in found.iter().zip([y, mean, rstd, sum]) {
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

    /// Of x, gamma and beta; the first without a residual and with one.
    fn grads<T: Real>([rows, d]: [usize; 2]) -> [Vec<T>; 4] {
        let (x, gamma, beta) = (normal(1, rows * d), normal(2, d), normal(3, d));
        let dy = normal(4, rows * d);
        let [_, mean, rstd] = naive(&x, &gamma, &beta);
        let (row, matrix) = (vec![d], vec![rows, d]);
        let shapes = [&matrix, &matrix, &row, &vec![rows], &vec![rows], &matrix].map(Vec::clone);
        let residual = normal(5, rows * d);
        let inputs = [&dy[..], &x, &gamma, &mean, &rstd, &residual];
        let [mut dx, mut sum] = [false, true].map(|residual| {
            let op = Op::LayerNormInputGrad { residual };
            let bound = if residual { 6 } else { 5 };
            let output = std::slice::from_ref(&matrix);
            run_op::<T>(op, &inputs[..bound], &shapes[..bound], output)
        });
        let shapes = [matrix.clone(), matrix, vec![rows], vec![rows]];
        let inputs = [&dy[..], &x, &mean, &rstd];
        let mut params = run_op::<T>(Op::LayerNormParamGrad, &inputs, &shapes, &[row.clone(), row]);
        let dbeta = params.remove(1);
        [dx.remove(0), sum.remove(0), params.remove(0), dbeta]
    }

    #[test]
    fn gradients_match_finite_differences_of_the_plain_loops() {
        for [rows, d] in CASES.into_iter().take(4) {
            let (x, gamma, beta) = (normal(1, rows * d), normal(2, d), normal(3, d));
            let dy = normal(4, rows * d);
            let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| dot(&naive(x, gamma, beta)[0], &dy);
            let [dx, sum, dgamma, dbeta] = grads::<f64>([rows, d]);
            let expected = finite_difference(&x, |x| loss(x, &gamma, &beta));
            assert_close(&dx, &expected, 1e-6, 1e-6);
            let expected: Vec<f64> =
                expected.iter().zip(normal(5, rows * d)).map(|(dx, other)| dx + other).collect();
            assert_close(&sum, &expected, 1e-6, 1e-6);
            let expected = finite_difference(&gamma, |gamma| loss(&x, gamma, &beta));
            assert_close(&dgamma, &expected, 1e-7, 1e-7);
            let expected = finite_difference(&beta, |beta| loss(&x, &gamma, beta));
            assert_close(&dbeta, &expected, 1e-7, 1e-7);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        in_pools(|| grads::<f32>([400, 130]).concat());
        in_pools(|| forward::<f32>([400, 130]).concat());
    }
}
