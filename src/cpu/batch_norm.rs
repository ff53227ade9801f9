//! Batch norm (Ioffe and Szegedy, 2015): statistics, forward, and both gradients.
//!
//! Statistics and sums go channel by channel, each channel's in the order of the samples.

use rayon::prelude::*;

use super::bias::channels_and_plane;
use super::call::Call;
use super::matmul::activate;
use super::parallel::{min_items, sum, sum2, vectorized};
use super::real::Real;
use crate::graph::op::{Activation, Op};

/// How `[n, c, ..]` is walked.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Samples to take into account.
    pub samples: usize,
    /// Channels.
    pub channels: usize,
    /// Elements of one sample's channel.
    pub plane: usize,
}

impl Layout {
    /// The planes of one channel, in the order of the samples.
    fn channel<'a, T>(
        &self,
        x: &'a [T],
        channel: usize,
    ) -> impl Iterator<Item = &'a [T]> + use<'a, T> {
        let Self { samples, channels, plane } = *self;
        (0..samples).map(move |i| &x[(i * channels + channel) * plane..][..plane])
    }

    /// Elements of a channel.
    fn count<T: Real>(&self) -> T {
        T::of((self.samples * self.plane) as f64)
    }

    /// Elements of a sample.
    fn sample(&self) -> usize {
        self.channels * self.plane
    }
}

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let of = |i: usize, samples| {
        let (channels, plane) = channels_and_plane(call.shape(i));
        Layout { samples, channels, plane }
    };
    let valid = call.header.count as usize;
    match *call.op {
        Op::BatchNormStats { momentum } => {
            let (layout, momentum) = (of(0, valid), T::of(f64::from(momentum)));
            let (x, batch) = (call.real(0), [call.out(0), call.out(1)]);
            batch_norm_stats(x, layout, momentum, batch, [call.out(2), call.out(3)]);
        }
        Op::BatchNorm { eps, activation, residual } => {
            let layout = of(0, call.shape(0)[0]);
            let norm = Norm { affine: [1, 2, 3, 4].map(|i| call.real(i)), layout, eps };
            let residual = residual.then(|| call.real(5));
            batch_norm(call.real(0), norm, residual, activation, call.out(0));
        }
        Op::BatchNormParamGrad { eps, relu } => {
            let layout = of(1, call.shape(1)[0]);
            let norm = Norm { affine: [2, 3, 4, 5].map(|i| call.real(i)), layout, eps };
            let outputs = [call.out(0), call.out(1)];
            batch_norm_param_grad(call.real(0), call.real(1), norm, relu, outputs);
        }
        Op::BatchNormInputGrad { eps, relu } => {
            let layout = of(1, valid);
            let norm = Norm { affine: [2, 3, 4, 5].map(|i| call.real(i)), layout, eps };
            let [dy, x, dgamma, dbeta] = [0, 1, 6, 7].map(|i| call.real(i));
            batch_norm_input_grad([dy, x], norm, relu, [dgamma, dbeta], call.out(0));
        }
        Op::BatchNormTrain { momentum, eps, activation, residual } => {
            let [valid, all] = [valid, call.shape(0)[0]].map(|samples| of(0, samples));
            let (x, momentum) = (call.real(0), T::of(f64::from(momentum)));
            let [mean, var, running_mean, running_var] = [1, 2, 3, 4].map(|i| call.out(i));
            let running = [running_mean, running_var];
            batch_norm_stats(x, valid, momentum, [&mut *mean, &mut *var], running);
            let affine = [call.real(1), call.real(2), &*mean, &*var];
            let norm = Norm { affine, layout: all, eps };
            let residual = residual.then(|| call.real(4));
            batch_norm(x, norm, residual, activation, call.out(0));
        }
        Op::BatchNormGrad { eps, relu } => {
            let affine = [2, 3, 4, 5].map(|i| call.real(i));
            let [valid, all] = [valid, call.shape(1)[0]].map(|samples| Norm {
                affine,
                layout: of(1, samples),
                eps,
            });
            let (dy, x) = (call.real(0), call.real(1));
            let [dx, dgamma, dbeta] = [0, 1, 2].map(|i| call.out(i));
            batch_norm_param_grad(dy, x, all, relu, [&mut *dgamma, &mut *dbeta]);
            batch_norm_input_grad([dy, x], valid, relu, [&*dgamma, &*dbeta], dx);
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// Mean and biased variance of each channel over the samples of `layout`; the running ones move by
/// `momentum` towards the mean and the unbiased variance.
pub fn batch_norm_stats<T: Real>(
    x: &[T],
    layout: Layout,
    momentum: T,
    [mean, var]: [&mut [T]; 2],
    [running_mean, running_var]: [&mut [T]; 2],
) {
    let count: T = layout.count();
    let bessel = if count > T::ONE { count / (count - T::ONE) } else { T::ONE };
    let outputs = mean.par_iter_mut().zip(var).zip(running_mean.par_iter_mut().zip(running_var));
    outputs.enumerate().for_each(|(channel, ((mean, var), (running_mean, running_var)))| {
        (*mean, *var) = vectorized(
            #[inline(always)]
            || {
                let planes = || layout.channel(x, channel);
                let mean = planes().map(|x| sum(x, |x| x)).sum::<T>() / count;
                let square = |x| sum(x, |x: T| (x - mean) * (x - mean));
                (mean, planes().map(square).sum::<T>() / count)
            },
        );
        // Activations that overflow skip the update of the parameters; what they would leave here stays.
        if var.is_finite() {
            *running_mean += momentum * (*mean - *running_mean);
            *running_var += momentum * (*var * bessel - *running_var);
        }
    });
}

/// One over the standard deviation.
#[inline(always)]
fn rstd<T: Real>(var: T, eps: f32) -> T {
    T::ONE / (var + T::of(f64::from(eps))).sqrt()
}

/// The map of a norm, and what it is over.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a, T> {
    /// Gamma, beta, mean and variance of each channel.
    pub affine: [&'a [T]; 4],
    /// How tensors are walked.
    pub layout: Layout,
    /// Added to the variance.
    pub eps: f32,
}

impl<T: Real> Norm<'_, T> {
    /// The norm of one channel.
    #[inline(always)]
    fn channel(&self, channel: usize) -> ChannelNorm<T> {
        let [gamma, beta, mean, var] = self.affine.map(|x| x[channel]);
        let rstd = rstd(var, self.eps);
        ChannelNorm { mean, rstd, scale: gamma * rstd, beta }
    }
}

/// The norm of one channel: y = scale · (x - mean) + beta, where scale is gamma · rstd.
#[derive(Clone, Copy)]
struct ChannelNorm<T> {
    mean: T,
    rstd: T,
    scale: T,
    beta: T,
}

impl<T: Real> ChannelNorm<T> {
    #[inline(always)]
    fn of(&self, x: T) -> T {
        (x - self.mean) * self.scale + self.beta
    }

    /// The gradient before a relu that may stand behind the norm.
    #[inline(always)]
    fn pass(&self, relu: bool, dy: T, x: T) -> T {
        if !relu || self.of(x) > T::ZERO { dy } else { T::ZERO }
    }
}

/// y = activation(gamma · (x - mean) / √(var + eps) + beta + residual).
pub fn batch_norm<T: Real>(
    x: &[T],
    norm: Norm<'_, T>,
    residual: Option<&[T]>,
    activation: Activation,
    y: &mut [T],
) {
    let (sample, plane) = (norm.layout.sample(), norm.layout.plane);
    let samples = y.par_chunks_mut(sample).zip(x.par_chunks(sample)).enumerate();
    samples.with_min_len(min_items(sample)).for_each(|(i, (y, x))| {
        vectorized(
            #[inline(always)]
            || {
                for (channel, (y, x)) in y.chunks_mut(plane).zip(x.chunks(plane)).enumerate() {
                    let norm = norm.channel(channel);
                    y.iter_mut().zip(x).for_each(|(y, &x)| *y = norm.of(x));
                }
                if let Some(residual) = residual {
                    let residual = &residual[i * sample..];
                    y.iter_mut().zip(residual).for_each(|(y, &residual)| *y += residual);
                }
            },
        );
        activate(y, activation);
    });
}

/// dgamma = Σ dy · x̂ and dbeta = Σ dy, where x̂ is the normalised x; with `relu`, over the elements that a
/// relu behind the norm passes.
pub fn batch_norm_param_grad<T: Real>(
    dy: &[T],
    x: &[T],
    norm: Norm<'_, T>,
    relu: bool,
    [dgamma, dbeta]: [&mut [T]; 2],
) {
    let layout = norm.layout;
    dgamma.par_iter_mut().zip(dbeta).enumerate().for_each(|(channel, (dgamma, dbeta))| {
        let norm = norm.channel(channel);
        (*dgamma, *dbeta) = vectorized(
            #[inline(always)]
            || {
                let (mut products, mut sums) = (T::ZERO, T::ZERO);
                for (dy, x) in layout.channel(dy, channel).zip(layout.channel(x, channel)) {
                    products += sum2(dy, x, |dy, x| norm.pass(relu, dy, x) * (x - norm.mean));
                    sums += sum2(dy, x, |dy, x| norm.pass(relu, dy, x));
                }
                (products * norm.rstd, sums)
            },
        );
    });
}

/// dx = gamma / √(var + eps) · (dy - mean of dy - x̂ · mean of dy · x̂) over the samples of `layout`, and 0
/// for those behind them; with `relu`, dy is 0 where a relu behind the norm passes nothing.
pub fn batch_norm_input_grad<T: Real>(
    [dy, x]: [&[T]; 2],
    norm: Norm<'_, T>,
    relu: bool,
    [dgamma, dbeta]: [&[T]; 2],
    dx: &mut [T],
) {
    let layout = norm.layout;
    let (sample, plane, count) = (layout.sample(), layout.plane, layout.count::<T>());
    let (valid, padding) = dx.split_at_mut(layout.samples * sample);
    padding.fill(T::ZERO);
    let samples = valid.par_chunks_mut(sample).zip(dy.par_chunks(sample).zip(x.par_chunks(sample)));
    samples.with_min_len(min_items(sample)).for_each(|(dx, (dy, x))| {
        vectorized(
            #[inline(always)]
            || {
                let planes = dx.chunks_mut(plane).zip(dy.chunks(plane).zip(x.chunks(plane)));
                for (channel, (dx, (dy, x))) in planes.enumerate() {
                    let norm = norm.channel(channel);
                    let mean_dy = dbeta[channel] / count;
                    let slope = dgamma[channel] / count * norm.rstd;
                    for (dx, (&dy, &x)) in dx.iter_mut().zip(dy.iter().zip(x)) {
                        let dy = norm.pass(relu, dy, x);
                        *dx = norm.scale * (dy - mean_dy - (x - norm.mean) * slope);
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{in_pools, run_op_at};
    use crate::testing::{assert_close, dot, finite_difference, normal};

    const EPS: f32 = 1e-3;
    const CASES: [[usize; 3]; 4] = [[3, 1, 1], [5, 3, 1], [4, 2, 9], [6, 5, 49]];

    /// Mean and biased variance of each channel over the first `count` samples, in plain loops.
    fn naive_stats(x: &[f64], count: usize, c: usize, plane: usize) -> (Vec<f64>, Vec<f64>) {
        let elements = |channel: usize| {
            let valid = &x[..count * c * plane];
            valid.iter().enumerate().filter(move |(i, _)| i / plane % c == channel).map(|(_, &x)| x)
        };
        let n = (count * plane) as f64;
        let mean: Vec<f64> = (0..c).map(|k| elements(k).sum::<f64>() / n).collect();
        let var = (0..c).map(|k| elements(k).map(|x| (x - mean[k]).powi(2)).sum::<f64>() / n);
        (mean.clone(), var.collect())
    }

    /// y in plain loops, with the batch's own statistics.
    fn naive(x: &[f64], gamma: &[f64], beta: &[f64], count: usize, plane: usize) -> Vec<f64> {
        let c = gamma.len();
        let (mean, var) = naive_stats(x, count, c, plane);
        let normalised = x.iter().enumerate().map(|(i, x)| {
            let k = i / plane % c;
            gamma[k] * (x - mean[k]) / (var[k] + f64::from(EPS)).sqrt() + beta[k]
        });
        normalised.collect()
    }

    fn check_forward<T: Real>([n, c, plane]: [usize; 3], count: usize, tolerance: f64) {
        let (x, gamma, beta) = (normal(1, n * c * plane), normal(2, c), normal(3, c));
        let (mean, var) = naive_stats(&x, count, c, plane);
        let (shape, channel) = (vec![n, c, plane], vec![c]);
        let stats = run_op_at::<T>(
            Op::BatchNormStats { momentum: 0.25 },
            &[&x],
            std::slice::from_ref(&shape),
            &vec![channel.clone(); 4],
            count,
        );
        assert_close(&stats[0], &mean, tolerance, tolerance);
        assert_close(&stats[1], &var, tolerance, tolerance);
        // `run_op_at` starts outputs at 0.5, which running statistics move away from.
        let running: Vec<f64> = mean.iter().map(|m| 0.375 + 0.25 * m).collect();
        assert_close(&stats[2], &running, tolerance, tolerance);
        let m = (count * plane) as f64;
        let running: Vec<f64> = var.iter().map(|v| 0.375 + 0.25 * v * m / (m - 1.0)).collect();
        assert_close(&stats[3], &running, tolerance, tolerance);

        let residual = normal(4, x.len());
        let inputs = [&x[..], &gamma, &beta, &mean, &var, &residual];
        let mut shapes = vec![channel; 6];
        (shapes[0], shapes[5]) = (shape.clone(), shape.clone());
        for with in [false, true] {
            let mut expected = naive(&x, &gamma, &beta, count, plane);
            let add = |(y, r): (&mut f64, &f64)| *y += if with { *r } else { 0.0 };
            expected.iter_mut().zip(&residual).for_each(add);
            expected.iter_mut().for_each(|y| *y = y.max(0.0));
            let op = Op::BatchNorm { eps: EPS, activation: Activation::Relu, residual: with };
            let bound = if with { 6 } else { 5 };
            let y = run_op_at::<T>(
                op,
                &inputs[..bound],
                &shapes[..bound],
                std::slice::from_ref(&shape),
                count,
            );
            assert_close(&y[0], &expected, 3.0 * tolerance, 3.0 * tolerance);
        }
    }

    #[test]
    fn forward_matches_plain_loops_for_full_and_partial_batches() {
        for case in CASES {
            for count in [case[0], case[0] - 1] {
                check_forward::<f32>(case, count, 1e-5);
                check_forward::<f64>(case, count, 1e-12);
            }
        }
    }

    /// The gradients with respect to gamma, beta and x, by both operations.
    fn gradients(
        [x, gamma, beta, dy]: [&[f64]; 4],
        relu: bool,
        shape: [usize; 3],
        count: usize,
    ) -> [Vec<f64>; 3] {
        let (mean, var) = naive_stats(x, count, shape[1], shape[2]);
        let (shape, channel) = (shape.to_vec(), vec![shape[1]]);
        let shapes = |channels| {
            [vec![shape.clone(), shape.clone()], vec![channel.clone(); channels]].concat()
        };
        let op = Op::BatchNormParamGrad { eps: EPS, relu };
        let inputs = [dy, x, gamma, beta, &mean, &var];
        let outputs = [channel.clone(), channel.clone()];
        let grads = run_op_at::<f64>(op, &inputs, &shapes(4), &outputs, count);
        let inputs = [dy, x, gamma, beta, &mean, &var, &grads[0], &grads[1]];
        let op = Op::BatchNormInputGrad { eps: EPS, relu };
        let dx = run_op_at::<f64>(op, &inputs, &shapes(6), std::slice::from_ref(&shape), count);
        [grads[0].clone(), grads[1].clone(), dx[0].clone()]
    }

    #[test]
    fn gradients_match_finite_differences_of_the_plain_loops() {
        for (shape @ [n, c, plane], relu) in
            CASES.into_iter().flat_map(|case| [(case, false), (case, true)])
        {
            for count in [n, n - 1] {
                let (x, gamma, beta) = (normal(1, n * c * plane), normal(2, c), normal(3, c));
                // The loss gives padding no gradient.
                let mut dy = normal(4, x.len());
                dy[count * c * plane..].fill(0.0);
                // Nor does the test where a difference would step over the kink of the relu.
                let y = naive(&x, &gamma, &beta, count, plane);
                dy.iter_mut().zip(y).filter(|(_, y)| y.abs() < 1e-3).for_each(|(dy, _)| *dy = 0.0);
                let [dgamma, dbeta, dx] = gradients([&x, &gamma, &beta, &dy], relu, shape, count);
                let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| {
                    let mut y = naive(x, gamma, beta, count, plane);
                    y.iter_mut().filter(|_| relu).for_each(|y| *y = y.max(0.0));
                    dot(&y, &dy)
                };
                let expected = finite_difference(&gamma, |gamma| loss(&x, gamma, &beta));
                assert_close(&dgamma, &expected, 1e-7, 1e-7);
                let expected = finite_difference(&beta, |beta| loss(&x, &gamma, beta));
                assert_close(&dbeta, &expected, 1e-7, 1e-7);
                let mut expected = finite_difference(&x, |x| loss(x, &gamma, &beta));
                expected[count * c * plane..].fill(0.0);
                assert_close(&dx, &expected, 1e-6, 1e-6);
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let x = normal(1, 9 * 7 * 130);
        let shape = vec![9, 7, 130];
        in_pools(|| {
            let op = Op::BatchNormStats { momentum: 0.1 };
            let outputs = vec![vec![7]; 4];
            run_op_at::<f32>(op, &[&x], std::slice::from_ref(&shape), &outputs, 8).concat()
        });
    }
}
