//! Dropout by counter-based randomness.

use rayon::prelude::*;

use super::call::Call;
use super::parallel::{CHUNK, vectorized};
use super::real::Real;
use crate::batch::StepHeader;
use crate::graph::op::Op;
use crate::rng::pcg3d;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let Op::Dropout { p, salt } = *call.op else { unreachable!("dispatched by family") };
    dropout(call.real(0), p, salt, call.header, call.out(0));
}

/// y = 0 with probability p, else x / (1 - p); see [`Op::Dropout`].
pub fn dropout<T: Real>(x: &[T], p: f32, salt: u32, header: &StepHeader, y: &mut [T]) {
    let threshold = (f64::from(p) * 4_294_967_296.0) as u32;
    let scale = T::of(1.0 / (1.0 - f64::from(p)));
    let step = header.step.wrapping_add(header.seed_high);
    let stream = header.seed_low ^ salt ^ header.micro_step.wrapping_mul(0x9e37_79b9);
    let chunks = y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).enumerate();
    chunks.for_each(|(chunk, (y, x))| {
        let first = (chunk * CHUNK) as u32;
        vectorized(
            #[inline(always)]
            || {
                for (i, (y, &x)) in (first..).zip(y.iter_mut().zip(x)) {
                    let kept = pcg3d([i, step, stream])[0] >= threshold;
                    *y = if kept { scale * x } else { T::ZERO };
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::normal;

    const HEADER: StepHeader = StepHeader {
        count: 1,
        step: 9,
        seed_low: 0x1234_5678,
        seed_high: 77,
        lr: 0.0,
        micro_step: 3,
        weight: 1.0,
        _pad: 0,
    };

    fn ones(p: f32, salt: u32, header: &StepHeader) -> Vec<f64> {
        let mut y = vec![f64::NAN; 20_000];
        dropout(&vec![1.0; 20_000], p, salt, header, &mut y);
        y
    }

    #[test]
    fn follows_the_formula_element_by_element() {
        let x = normal(3, 9000);
        let mut y = vec![f64::NAN; 9000];
        dropout(&x, 0.3, 41, &HEADER, &mut y);
        let stream = 0x1234_5678u32 ^ 41 ^ 3u32.wrapping_mul(0x9e37_79b9);
        for i in [0usize, 1, 17, 8191, 8192, 8999] {
            let dropped = pcg3d([i as u32, 9 + 77, stream])[0] < 1_288_490_239;
            let expected = if dropped { 0.0 } else { x[i] / (1.0 - f64::from(0.3f32)) };
            assert!((y[i] - expected).abs() < 1e-12, "element {i}: {} for {expected}", y[i]);
        }
    }

    #[test]
    fn drops_the_share_asked_for_and_keeps_the_mean() {
        for p in [0.0, 0.1, 0.5, 0.9] {
            let y = ones(p, 0, &HEADER);
            let zeros = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
            assert!((zeros - f64::from(p)).abs() < 0.015, "{zeros} for {p}");
            let mean = y.iter().sum::<f64>() / y.len() as f64;
            assert!((mean - 1.0).abs() < 0.05, "{mean} for {p}");
        }
    }

    #[test]
    fn layers_steps_and_seeds_differ_and_a_repeat_does_not() {
        let first = ones(0.5, 1, &HEADER);
        assert_eq!(first, ones(0.5, 1, &HEADER));
        let others = [
            ones(0.5, 2, &HEADER),
            ones(0.5, 1, &StepHeader { step: 10, ..HEADER }),
            ones(0.5, 1, &StepHeader { micro_step: 4, ..HEADER }),
            ones(0.5, 1, &StepHeader { seed_low: 5, ..HEADER }),
            ones(0.5, 1, &StepHeader { seed_high: 5, ..HEADER }),
        ];
        assert!(others.iter().all(|other| *other != first));
    }
}
