//! What a step reports: correct predictions, and the sums over the batch.

use super::call::Call;
use super::parallel::sum;
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let (x, valid, y) = (call.real(0), call.header.count as usize, call.out(0));
    match *call.op {
        Op::Accuracy => accuracy(x, call.indices(1), call.shape(0)[1], valid, y),
        Op::StepMetrics { accuracy, per_sample } => {
            step_metrics(x, accuracy.then(|| call.real(1)), valid, per_sample, y);
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// 1 for each valid row whose first maximum is the target, else 0.
pub fn accuracy<T: Real>(
    logits: &[T],
    target: &[u32],
    classes: usize,
    valid: usize,
    correct: &mut [T],
) {
    correct.fill(T::ZERO);
    let rows = logits.chunks(classes).zip(target).take(valid);
    for (correct, (logits, &target)) in correct.iter_mut().zip(rows) {
        let mut best = 0;
        for (class, &x) in logits.iter().enumerate() {
            if x > logits[best] {
                best = class;
            }
        }
        if best == target as usize {
            *correct = T::ONE;
        }
    }
}

/// The sum over samples of the mean losses of their rows, likewise of correct ones, the count of valid samples, 0.
pub fn step_metrics<T: Real>(
    loss: &[T],
    correct: Option<&[T]>,
    valid: usize,
    per_sample: usize,
    metrics: &mut [T],
) {
    let rows = T::of(per_sample as f64);
    metrics[0] = sum(loss, |x| x) / rows;
    metrics[1] = correct.map_or(T::ZERO, |correct| sum(correct, |x| x) / rows);
    metrics[2] = T::of(valid as f64);
    metrics[3] = T::ZERO;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_maximum_of_a_valid_row_counts() {
        let logits = [1.0f32, 3.0, 3.0, -1.0, -2.0, -3.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0];
        let mut correct = [f32::NAN; 4];
        accuracy(&logits, &[1, 0, 2, 0], 3, 3, &mut correct);
        assert_eq!(correct, [1.0, 1.0, 0.0, 0.0]);
        accuracy(&logits, &[2, 1, 0, 0], 3, 4, &mut correct);
        assert_eq!(correct, [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn metrics_are_sums() {
        let mut metrics = [f32::NAN; 4];
        step_metrics(&[0.5, 1.0, 2.0, 0.0], Some(&[1.0, 0.0, 1.0, 0.0]), 3, 1, &mut metrics);
        assert_eq!(metrics, [3.5, 2.0, 3.0, 0.0]);
        step_metrics(&[0.25; 2], None, 2, 1, &mut metrics);
        assert_eq!(metrics, [0.5, 0.0, 2.0, 0.0]);
        // Three rows a sample, the last sample being padding.
        let losses = [1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 0.0, 0.0, 0.0];
        step_metrics(&losses, None, 2, 3, &mut metrics);
        assert_eq!(metrics, [6.0, 0.0, 2.0, 0.0]);
    }
}
