//! Cross-entropy against probabilities, with its gradient.

use super::call::Call;
use super::loss::each_row;
use super::parallel::{sum, sum2};
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let Op::SoftCrossEntropy { gradient } = *call.op else { unreachable!("dispatched by family") };
    let (classes, valid, loss) = (call.shape(0)[1], call.header.count as usize, call.out(0));
    let gradient = gradient.then(|| call.out(1));
    soft_cross_entropy(call.real(0), call.real(1), classes, valid, loss, gradient);
}

/// loss\[n\] = -Σ t ln softmax(logits); the gradient is that of the mean over the valid rows.
pub fn soft_cross_entropy<T: Real>(
    logits: &[T],
    target: &[T],
    classes: usize,
    valid: usize,
    loss: &mut [T],
    gradient: Option<&mut [T]>,
) {
    let factor = T::of(1.0 / valid as f64);
    each_row(classes, valid, loss, gradient, |i, gradient| {
        let (logits, target) =
            (&logits[i * classes..][..classes], &target[i * classes..][..classes]);
        let max = logits.iter().fold(T::NEG_INFINITY, |max, &x| if x > max { x } else { max });
        let total: T = logits.iter().map(|&x| (x - max).exp()).sum();
        let weight = sum(target, |t| t);
        if let Some(gradient) = gradient {
            for (gradient, (&x, &t)) in gradient.iter_mut().zip(logits.iter().zip(target)) {
                *gradient = ((x - max).exp() / total * weight - t) * factor;
            }
        }
        let log_total = total.ln();
        sum2(logits, target, |x, t| t * (log_total - (x - max)))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::loss::cross_entropy;
    use crate::cpu::testing::convert;
    use crate::testing::{assert_close, finite_difference, normal};

    /// Rows of positive numbers, which need not add up to 1.
    fn weights(key: u64, len: usize) -> Vec<f64> {
        normal(key, len).iter().map(|x| x * x).collect()
    }

    fn naive(logits: &[f64], target: &[f64], classes: usize) -> Vec<f64> {
        let rows = logits.chunks(classes).zip(target.chunks(classes));
        rows.map(|(x, t)| {
            let total: f64 = x.iter().map(|x| x.exp()).sum();
            x.iter().zip(t).map(|(x, t)| -t * (x.exp() / total).ln()).sum()
        })
        .collect()
    }

    fn check<T: Real>([n, classes, valid]: [usize; 3], tolerance: f64) {
        let (logits, target) = (normal(1, n * classes), weights(2, n * classes));
        let end = valid * classes;
        let loss_of = |x: &[f64]| naive(&x[..end], &target[..end], classes);
        let mut expected = loss_of(&logits);
        expected.resize(n, 0.0);
        let slope = finite_difference(&logits, |x| loss_of(x).iter().sum::<f64>() / valid as f64);
        let (x, t) = (convert::<T>(&logits), convert::<T>(&target));
        let (mut loss, mut dx) = (vec![T::of(f64::NAN); n], vec![T::of(f64::NAN); x.len()]);
        soft_cross_entropy(&x, &t, classes, valid, &mut loss, Some(&mut dx));
        assert_close(&loss, &expected, tolerance, tolerance);
        assert_close(&dx, &slope, tolerance.max(1e-8), tolerance.max(1e-8));
        let with_gradient = loss.clone();
        soft_cross_entropy(&x, &t, classes, valid, &mut loss, None);
        assert_eq!(loss, with_gradient);
    }

    #[test]
    fn matches_its_definition_and_finite_differences() {
        for case in [[1, 1, 1], [1, 2, 1], [5, 3, 4], [9, 10, 9], [70, 11, 69]] {
            check::<f32>(case, 5e-6);
            check::<f64>(case, 1e-12);
        }
    }

    /// PyTorch 2.15: cross_entropy of mixed, smoothed targets (λ 0.3, smoothing 0.1, classes 2, 0, 1 and their
    /// mirror), and its gradient.
    #[test]
    fn equals_pytorch() {
        let logits = [0.5, -1.25, 2.0, 0.0, 3.0, 0.25, -0.5, 1.0, -2.0, 0.75, 0.125, 0.5];
        let target =
            [0.025, 0.655, 0.295, 0.025, 0.925, 0.025, 0.025, 0.025, 0.025, 0.295, 0.655, 0.025];
        let (mut loss, mut gradient) = ([f64::NAN; 3], [f64::NAN; 12]);
        soft_cross_entropy(&logits, &target, 4, 3, &mut loss, Some(&mut gradient));
        let expected = [2.550748612603662, 0.4128254779421168, 1.3506306236581533];
        assert_close(&loss, &expected, 1e-14, 1e-14);
        let expected = [
            0.04489785001070274,
            -0.2090831406891065,
            0.14023227926079473,
            0.02395301141760901,
            -0.03721171065545465,
            0.008998892131355435,
            -0.00014616973924826666,
            0.02835898826334741,
            0.0006277162995768444,
            0.0418410673702201,
            -0.14330338337095594,
            0.10083459970115898,
        ];
        assert_close(&gradient, &expected, 1e-14, 1e-13);
    }

    #[test]
    fn a_certain_target_is_that_of_cross_entropy() {
        let (n, classes) = (7, 5);
        let logits = normal(3, n * classes);
        let classes_of: Vec<u32> = (0..n).map(|i| (i * 3 % classes) as u32).collect();
        let mut target = vec![0.0; n * classes];
        classes_of.iter().enumerate().for_each(|(i, &k)| target[i * classes + k as usize] = 1.0);
        let (mut hard, mut soft) = (vec![f64::NAN; n], vec![f64::NAN; n]);
        cross_entropy(&logits, &classes_of, classes, 0.0, n.into(), &mut hard, None);
        soft_cross_entropy(&logits, &target, classes, n, &mut soft, None);
        assert_close(&soft, &hard, 1e-13, 1e-13);
    }

    #[test]
    fn large_logits_stay_finite_and_nan_ones_show() {
        let mut loss = [0.0f32];
        soft_cross_entropy(&[1e4, -1e4, 0.0], &[0.5, 0.5, 0.0], 3, 1, &mut loss, None);
        assert_eq!(loss, [1e4]);
        soft_cross_entropy(&[0.0, f32::NAN, 1.0], &[1.0, 0.0, 0.0], 3, 1, &mut loss, None);
        assert!(loss[0].is_nan());
    }
}
