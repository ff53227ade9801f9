//! Losses with their gradients: cross-entropy over softmax, mean squared error.

use rayon::prelude::*;

use super::call::Call;
use super::parallel::{max, min_items, sum, sum2, vectorized};
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let (x, valid) = (call.real(0), call.header.count as usize);
    let (width, loss) = (call.shape(0)[1], call.out(0));
    match *call.op {
        Op::CrossEntropy { smoothing, gradient, per_sample, first } => {
            let all = valid * per_sample;
            let valid = Valid { here: all.saturating_sub(first), all };
            let smoothing = T::of(f64::from(smoothing));
            let gradient = gradient.then(|| call.out(1));
            cross_entropy(x, call.indices(1), width, smoothing, valid, loss, gradient);
        }
        Op::MeanSquaredError { gradient } => {
            let gradient = gradient.then(|| call.out(1));
            mean_squared_error(x, call.real(1), width, valid, loss, gradient);
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// Calls `row(i, loss, gradient)` for each of the first `valid` rows, and writes 0 for the others.
pub(super) fn each_row<T: Real>(
    width: usize,
    valid: usize,
    loss: &mut [T],
    gradient: Option<&mut [T]>,
    row: impl Fn(usize, Option<&mut [T]>) -> T + Sync,
) {
    let row = |i: usize, gradient: Option<&mut [T]>| match (i < valid, gradient) {
        (true, gradient) => row(i, gradient),
        (false, gradient) => {
            gradient.into_iter().for_each(|gradient| gradient.fill(T::ZERO));
            T::ZERO
        }
    };
    let losses = loss.par_iter_mut().with_min_len(min_items(16 * width)).enumerate();
    match gradient {
        Some(gradient) => losses
            .zip(gradient.par_chunks_mut(width))
            .for_each(|((i, loss), gradient)| *loss = row(i, Some(gradient))),
        None => losses.for_each(|(i, loss)| *loss = row(i, None)),
    }
}

/// Rows that are no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Valid {
    /// Of those at hand the first so many, if there are as many.
    pub here: usize,
    /// Of the whole batch, over which the mean is taken.
    pub all: usize,
}

impl From<usize> for Valid {
    /// All rows of the batch are at hand.
    fn from(rows: usize) -> Self {
        Self { here: rows, all: rows }
    }
}

/// loss\[n\] = -Σ q ln softmax(logits), where q is 1 for the target, `smoothing` of it spread over all
/// classes; the gradient is that of the mean over the valid rows.
pub fn cross_entropy<T: Real>(
    logits: &[T],
    target: &[u32],
    classes: usize,
    smoothing: T,
    valid: Valid,
    loss: &mut [T],
    gradient: Option<&mut [T]>,
) {
    let share = smoothing / T::of(classes as f64);
    let factor = T::of(1.0 / valid.all as f64);
    each_row(classes, valid.here, loss, gradient, |i, gradient| {
        let logits = &logits[i * classes..][..classes];
        let target = target[i] as usize;
        vectorized(
            #[inline(always)]
            || {
                let max = max(logits);
                let total = match gradient {
                    None => sum(logits, |x| (x - max).exp()),
                    Some(gradient) => {
                        // The exponentials are kept where the gradient comes to stand.
                        for (power, &x) in gradient.iter_mut().zip(logits) {
                            *power = (x - max).exp();
                        }
                        let total = sum(gradient, |power| power);
                        let (scale, shift) = (factor / total, factor * share);
                        gradient.iter_mut().for_each(|power| *power = *power * scale - shift);
                        gradient[target] += (smoothing - T::ONE) * factor;
                        total
                    }
                };
                let log_total = total.ln();
                let loss = (T::ONE - smoothing) * (log_total - (logits[target] - max));
                if smoothing == T::ZERO {
                    return loss;
                }
                loss + share * sum(logits, |x| log_total - (x - max))
            },
        )
    });
}

/// loss\[n\] = mean of (x - target)² over each row; the gradient is that of the mean over the valid rows.
pub fn mean_squared_error<T: Real>(
    x: &[T],
    target: &[T],
    width: usize,
    valid: usize,
    loss: &mut [T],
    gradient: Option<&mut [T]>,
) {
    let factor = T::of(2.0 / (width * valid) as f64);
    each_row(width, valid, loss, gradient, |i, gradient| {
        let (x, target) = (&x[i * width..][..width], &target[i * width..][..width]);
        if let Some(gradient) = gradient {
            for (gradient, (&x, &target)) in gradient.iter_mut().zip(x.iter().zip(target)) {
                *gradient = factor * (x - target);
            }
        }
        sum2(x, target, |x, target| (x - target) * (x - target)) / T::of(width as f64)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::convert;
    use crate::testing::{assert_close, finite_difference, normal};

    fn targets(n: usize, classes: usize) -> Vec<u32> {
        (0..n).map(|i| (i * 7 % classes) as u32).collect()
    }

    /// The loss of each valid row by its definition.
    fn naive(logits: &[f64], target: &[u32], classes: usize, smoothing: f64) -> Vec<f64> {
        let rows = logits.chunks(classes).zip(target);
        rows.map(|(x, &target)| {
            let total: f64 = x.iter().map(|x| x.exp()).sum();
            let class = |(class, x): (usize, &f64)| {
                let hit = f64::from(u8::from(class == target as usize));
                -((1.0 - smoothing) * hit + smoothing / classes as f64) * (x.exp() / total).ln()
            };
            x.iter().enumerate().map(class).sum()
        })
        .collect()
    }

    fn check<T: Real>([n, classes, valid]: [usize; 3], smoothing: f64, tolerance: f64) {
        let (logits, target) = (normal(1, n * classes), targets(n, classes));
        let end = valid * classes;
        let loss_of = |x: &[f64]| naive(&x[..end], &target[..valid], classes, smoothing);
        let mut expected = loss_of(&logits);
        expected.resize(n, 0.0);
        let slope = finite_difference(&logits, |x| loss_of(x).iter().sum::<f64>() / valid as f64);
        let x = convert::<T>(&logits);
        let (mut loss, mut dx) = (vec![T::of(f64::NAN); n], vec![T::of(f64::NAN); x.len()]);
        let smoothing = T::of(smoothing);
        cross_entropy(&x, &target, classes, smoothing, valid.into(), &mut loss, Some(&mut dx));
        assert_close(&loss, &expected, tolerance, tolerance);
        assert_close(&dx, &slope, tolerance.max(1e-9), tolerance.max(1e-8));
        let with_gradient = loss.clone();
        cross_entropy(&x, &target, classes, smoothing, valid.into(), &mut loss, None);
        assert_eq!(loss, with_gradient);
        // By parts of the batch, to the same bits.
        for first in 0..n {
            let here = valid.saturating_sub(first);
            let (x, rest) = (&x[first * classes..], n - first);
            let (mut loss, mut part) =
                (vec![T::of(f64::NAN); rest], vec![T::of(f64::NAN); x.len()]);
            let valid = Valid { here, all: valid };
            let gradient = Some(&mut part[..]);
            cross_entropy(x, &target[first..], classes, smoothing, valid, &mut loss, gradient);
            assert_eq!((&loss[..], &part[..]), (&with_gradient[first..], &dx[first * classes..]));
        }
    }

    #[test]
    fn cross_entropy_matches_its_definition_and_finite_differences() {
        for case in [[1, 1, 1], [1, 2, 1], [5, 3, 4], [9, 10, 9], [70, 11, 69]] {
            for smoothing in [0.0, 0.1] {
                check::<f32>(case, smoothing, 2e-6);
                check::<f64>(case, smoothing, 1e-12);
            }
        }
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let mut loss = [0.0f32];
        cross_entropy(&[1e4, -1e4, 0.0], &[0], 3, 0.0, 1.into(), &mut loss, None);
        assert_eq!(loss, [0.0]);
        cross_entropy(&[1e4, -1e4, 0.0], &[1], 3, 0.0, 1.into(), &mut loss, None);
        assert_eq!(loss, [2e4]);
    }

    #[test]
    fn a_nan_logit_makes_the_loss_nan() {
        let mut loss = [0.0f32];
        cross_entropy(&[0.0, f32::NAN, 1.0], &[0], 3, 0.0, 1.into(), &mut loss, None);
        assert!(loss[0].is_nan());
    }

    #[test]
    fn mean_squared_error_matches_its_definition_and_finite_differences() {
        for [n, width, valid] in [[1, 1, 1], [5, 3, 4], [4, 33, 4]] {
            let (x, target) = (normal(1, n * width), normal(2, n * width));
            let loss_of = |x: &[f64]| -> Vec<f64> {
                let rows = x.chunks(width).zip(target.chunks(width)).take(valid);
                let mean = |(x, t): (&[f64], &[f64])| {
                    x.iter().zip(t).map(|(x, t)| (x - t).powi(2)).sum::<f64>() / width as f64
                };
                rows.map(mean).collect()
            };
            let mut expected = loss_of(&x);
            expected.resize(n, 0.0);
            let slope = finite_difference(&x, |x| loss_of(x).iter().sum::<f64>() / valid as f64);
            let (mut loss, mut dx) = (vec![f64::NAN; n], vec![f64::NAN; x.len()]);
            mean_squared_error(&x, &target, width, valid, &mut loss, Some(&mut dx));
            assert_close(&loss, &expected, 1e-13, 1e-13);
            assert_close(&dx, &slope, 1e-8, 1e-8);
            let (x, target) = (convert::<f32>(&x), convert::<f32>(&target));
            let (mut loss, mut dx) = (vec![f32::NAN; n], vec![f32::NAN; x.len()]);
            mean_squared_error(&x, &target, width, valid, &mut loss, Some(&mut dx));
            assert_close(&loss, &expected, 1e-5, 1e-5);
            assert_close(&dx, &slope, 1e-6, 1e-5);
        }
    }
}
