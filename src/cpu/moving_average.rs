//! The moving average of the parameters.

use super::call::Call;
use super::optimizer::update;
use super::parallel::map;
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let Op::MovingAverage { share } = *call.op else { unreachable!("dispatched by family") };
    moving_average(call.real(0), call.real(1), share, call.out(0));
}

/// average += share · (parameters - average), unless `control` says that the update was skipped; after the
/// first update that was applied it becomes the parameters. See [`Op::OptimizerControl`] for the words.
pub fn moving_average<T: Real>(parameters: &[T], control: &[T], share: f32, average: &mut [T]) {
    if control[6] == T::ZERO {
        return;
    }
    if control[2] == T::ONE {
        return map(parameters, average, |p| p);
    }
    let share = T::of(f64::from(share));
    update(parameters, average, |p, average| *average += share * (p - *average));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{convert, in_pools};
    use crate::testing::{assert_close, normal};

    /// Control words after so many updates, the last of which was applied or not.
    fn control<T: Real>(applied: f64, apply: f64) -> Vec<T> {
        convert(&[0.1, 0.001, applied, 3.0, 2.0, 0.5, apply, 0.0])
    }

    /// Several updates, one of which is skipped, against the sum that they amount to.
    fn check<T: Real>(len: usize, tolerance: f64) {
        let (share, keep) = (0.25f32, 0.75f64);
        let mut average = vec![T::of(f64::NAN); len];
        for step in 1..=5u32 {
            let parameters = convert::<T>(&normal(u64::from(step), len));
            moving_average(&parameters, &control(f64::from(step), 1.0), share, &mut average);
            moving_average(&vec![T::of(f64::NAN); len], &control(1.0, 0.0), share, &mut average);
        }
        let weights = [keep.powi(4), 0.25 * keep.powi(3), 0.25 * keep.powi(2), 0.25 * keep, 0.25];
        let steps: Vec<Vec<f64>> = (1..=5).map(|step| normal(step, len)).collect();
        let expected: Vec<f64> = (0..len)
            .map(|i| steps.iter().zip(weights).map(|(step, weight)| weight * step[i]).sum())
            .collect();
        assert_close(&average, &expected, tolerance, tolerance);
    }

    #[test]
    fn weighs_every_step_by_how_long_ago_it_was() {
        for len in [1, 33, 8191, 8193] {
            check::<f32>(len, 1e-6);
            check::<f64>(len, 1e-14);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let parameters = convert::<f32>(&normal(1, 100_003));
        in_pools(|| {
            let mut average = convert::<f32>(&normal(2, 100_003));
            moving_average(&parameters, &control(7.0, 1.0), 0.1, &mut average);
            average
        });
    }
}
