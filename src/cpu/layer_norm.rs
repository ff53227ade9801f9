//! Layer norm over the last dimension (Ba, Kiros and Hinton, 2016).

use rayon::prelude::*;

use super::bias::column_sums;
use super::call::Call;
use super::parallel::{min_items, sum, sum2, vectorized};
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    match *call.op {
        Op::LayerNorm { eps } => {
            let [x, gamma, beta] = [0, 1, 2].map(|i| call.real(i));
            let stats = [call.out(1), call.out(2)];
            layer_norm(x, gamma, beta, T::of(f64::from(eps)), call.out(0), stats);
        }
        Op::LayerNormInputGrad => {
            let [dy, x, gamma, mean, rstd] = [0, 1, 2, 3, 4].map(|i| call.real(i));
            layer_norm_input_grad(dy, x, gamma, [mean, rstd], call.out(0));
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
    gamma: &[T],
    beta: &[T],
    eps: T,
    y: &mut [T],
    [mean, rstd]: [&mut [T]; 2],
) {
    let d = gamma.len();
    let outputs = y.par_chunks_mut(d).zip(mean.par_iter_mut().zip(rstd));
    outputs.zip(x.par_chunks(d)).with_min_len(min_items(d)).for_each(|((y, (mean, rstd)), x)| {
        vectorized(
            #[inline(always)]
            || {
                let count = T::of(d as f64);
                *mean = sum(x, |x| x) / count;
                let mean = *mean;
                let var = sum(x, |x| (x - mean) * (x - mean)) / count;
                *rstd = T::ONE / (var + eps).sqrt();
                let rstd = *rstd;
                for ((y, &x), (&gamma, &beta)) in y.iter_mut().zip(x).zip(gamma.iter().zip(beta)) {
                    *y = (x - mean) * rstd * gamma + beta;
                }
            },
        );
    });
}

/// dx = rstd · (g - mean of g - x̂ · mean of g · x̂) in each row, where g = gamma · dy.
pub fn layer_norm_input_grad<T: Real>(
    dy: &[T],
    x: &[T],
    gamma: &[T],
    [mean, rstd]: [&[T]; 2],
    dx: &mut [T],
) {
    let d = gamma.len();
    let rows = dx.par_chunks_mut(d).zip(dy.par_chunks(d).zip(x.par_chunks(d)));
    let rows = rows.zip(mean.par_iter().zip(rstd));
    rows.with_min_len(min_items(d)).for_each(|((dx, (dy, x)), (&mean, &rstd))| {
        vectorized(
            #[inline(always)]
            || {
                // Until the last line dx holds g.
                for (dx, (&dy, &gamma)) in dx.iter_mut().zip(dy.iter().zip(gamma)) {
                    *dx = dy * gamma;
                }
                let count = T::of(d as f64);
                let mean_g = sum(dx, |g| g) / count;
                let slope = rstd * rstd * sum2(dx, x, |g, x| g * (x - mean)) / count;
                for (dx, &x) in dx.iter_mut().zip(x) {
                    *dx = rstd * (*dx - mean_g - (x - mean) * slope);
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

    fn check<T: Real>([rows, d]: [usize; 2], tolerance: f64) {
        let (x, gamma, beta) = (normal(1, rows * d), normal(2, d), normal(3, d));
        let shapes = [vec![rows, d], vec![d], vec![d]];
        let outputs = [vec![rows, d], vec![rows], vec![rows]];
        let op = Op::LayerNorm { eps: EPS };
        let y = run_op::<T>(op, &[&x, &gamma, &beta], &shapes, &outputs);
        for (y, expected) in y.iter().zip(naive(&x, &gamma, &beta)) {
            assert_close(y, &expected, tolerance, tolerance);
        }
    }

    #[test]
    fn forward_matches_plain_loops() {
        for case in CASES {
            check::<f32>(case, 1e-5);
            check::<f64>(case, 1e-12);
        }
    }

    fn grads<T: Real>([rows, d]: [usize; 2]) -> [Vec<T>; 3] {
        let (x, gamma, beta) = (normal(1, rows * d), normal(2, d), normal(3, d));
        let dy = normal(4, rows * d);
        let [_, mean, rstd] = naive(&x, &gamma, &beta);
        let (row, matrix) = (vec![d], vec![rows, d]);
        let shapes = [matrix.clone(), matrix.clone(), row.clone(), vec![rows], vec![rows]];
        let inputs = [&dy[..], &x, &gamma, &mean, &rstd];
        let mut dx =
            run_op::<T>(Op::LayerNormInputGrad, &inputs, &shapes, std::slice::from_ref(&matrix));
        let shapes = [matrix.clone(), matrix, vec![rows], vec![rows]];
        let inputs = [&dy[..], &x, &mean, &rstd];
        let mut params = run_op::<T>(Op::LayerNormParamGrad, &inputs, &shapes, &[row.clone(), row]);
        let dbeta = params.remove(1);
        [dx.remove(0), params.remove(0), dbeta]
    }

    #[test]
    fn gradients_match_finite_differences_of_the_plain_loops() {
        for [rows, d] in CASES.into_iter().take(4) {
            let (x, gamma, beta) = (normal(1, rows * d), normal(2, d), normal(3, d));
            let dy = normal(4, rows * d);
            let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| dot(&naive(x, gamma, beta)[0], &dy);
            let [dx, dgamma, dbeta] = grads::<f64>([rows, d]);
            assert_close(&dx, &finite_difference(&x, |x| loss(x, &gamma, &beta)), 1e-6, 1e-6);
            let expected = finite_difference(&gamma, |gamma| loss(&x, gamma, &beta));
            assert_close(&dgamma, &expected, 1e-7, 1e-7);
            let expected = finite_difference(&beta, |beta| loss(&x, &gamma, beta));
            assert_close(&dbeta, &expected, 1e-7, 1e-7);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        in_pools(|| grads::<f32>([40, 130]).concat());
    }
}
