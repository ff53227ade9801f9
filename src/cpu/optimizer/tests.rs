use super::*;
use crate::cpu::testing::{convert, in_pools};
use crate::testing::{assert_close, normal};

#[test]
fn squares_add_up_whatever_the_length() {
    for len in [1, 255, 256, 257, 5000, 100_003] {
        let g = normal(1, len);
        let expected: f64 = g.iter().map(|g| g * g).sum();
        let mut partials = vec![f64::NAN; GRAD_PARTIALS];
        grad_squares(&g, &mut partials);
        assert_close(&[partials.iter().sum::<f64>()], &[expected], 1e-12, 1e-12);
        let mut partials = vec![f32::NAN; GRAD_PARTIALS];
        grad_squares(&convert::<f32>(&g), &mut partials);
        assert_close(&[partials.iter().sum::<f32>()], &[expected], 1e-6, 1e-5);
    }
}

#[test]
fn threads_change_no_bit() {
    let g = convert::<f32>(&normal(1, 100_003));
    in_pools(|| {
        let mut partials = vec![f32::NAN; GRAD_PARTIALS];
        grad_squares(&g, &mut partials);
        partials
    });
}

#[test]
fn control_counts_clips_and_corrects_bias() {
    let mut control = [0.0f32; 10];
    for step in 1..=1000 {
        optimizer_control(&[9.0, 16.0], 2.5, [0.9, 0.999], false, &mut control);
        for (i, beta) in [(0, 0.9f32), (1, 0.999)] {
            let expected = 1.0 - f64::from(beta).powi(step);
            assert_close(&control[i..=i], &[expected], 0.0, 1e-5);
        }
    }
    assert_eq!(control[2..5], [1000.0, 0.0, 5.0]);
    assert_close(&control[5..6], &[2.5 / (5.0 + 1e-6)], 0.0, 1e-6);
    assert_eq!(control[6..], [1.0, 0.0, 0.0, 0.0]);
    optimizer_control(&[9.0, 16.0], f32::INFINITY, [0.0, 0.0], false, &mut control);
    assert_eq!(control[..2], [1.0, 1.0]);
    assert_eq!(control[5], 1.0);
}

#[test]
fn control_skips_what_is_not_finite_and_forgets_on_success() {
    let mut control = [0.0f32; 10];
    optimizer_control(&[1.0], 1.0, [0.9, 0.999], false, &mut control);
    let before = control;
    for (skipped, bad) in [(1.0, f32::NAN), (2.0, f32::INFINITY)] {
        optimizer_control(&[1.0, bad], 1.0, [0.9, 0.999], false, &mut control);
        assert_eq!(control[..3], before[..3]);
        assert_eq!([control[3], control[6], control[7]], [skipped, 0.0, skipped]);
        assert!(!control[4].is_finite());
    }
    optimizer_control(&[4.0], 9.0, [0.9, 0.999], false, &mut control);
    assert_eq!(control[2..], [2.0, 2.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
}

/// `torch.optim`'s formulas, one parameter at a time, with t counted from 1.
fn naive(rule: UpdateRule, t: i32, lr: f64, g: f64, state: &mut [f64; 3]) {
    let [p, m, v] = state;
    let wide = f64::from;
    match rule {
        UpdateRule::Sgd { momentum, nesterov, weight_decay } => {
            let g = g + wide(weight_decay) * *p;
            *m = wide(momentum) * *m + g;
            *p -= lr * if nesterov { g + wide(momentum) * *m } else { *m };
        }
        UpdateRule::Adam { beta1, beta2, eps, weight_decay, decoupled } => {
            let (beta1, beta2, decay) = (wide(beta1), wide(beta2), wide(weight_decay));
            let g = if decoupled { g } else { g + decay * *p };
            if decoupled {
                *p *= 1.0 - lr * decay;
            }
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            let (m_hat, v_hat) = (*m / (1.0 - beta1.powi(t)), *v / (1.0 - beta2.powi(t)));
            *p -= lr * m_hat / (v_hat.sqrt() + wide(eps));
        }
    }
}

fn rules() -> Vec<UpdateRule> {
    let sgd =
        |momentum, nesterov, weight_decay| UpdateRule::Sgd { momentum, nesterov, weight_decay };
    let adam = |weight_decay, decoupled| UpdateRule::Adam {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay,
        decoupled,
    };
    vec![
        sgd(0.0, false, 0.0),
        sgd(0.0, false, 0.1),
        sgd(0.9, false, 0.01),
        sgd(0.9, true, 0.01),
        adam(0.0, false),
        adam(0.1, false),
        adam(0.1, true),
    ]
}

/// Several steps with clipping and one that is skipped, in the middle.
fn run_steps<T: Real>(rule: UpdateRule, len: usize) -> Vec<T> {
    let mut parameters = convert::<T>(&normal(1, len));
    let (mut first, mut second) = (vec![T::ZERO; len], vec![T::ZERO; len]);
    let mut control = [T::ZERO; 8];
    let betas = match rule {
        UpdateRule::Adam { beta1, beta2, .. } => [beta1, beta2],
        UpdateRule::Sgd { .. } => [0.0; 2],
    };
    for step in 0..6 {
        let mut gradients = convert::<T>(&normal(10 + step, len));
        if step == 3 {
            gradients[len / 2] = T::of(f64::NAN);
        }
        let mut partials = vec![T::ZERO; GRAD_PARTIALS];
        grad_squares(&gradients, &mut partials);
        optimizer_control(&partials, 0.5, betas, false, &mut control);
        let memory = Memory {
            gradients: &gradients,
            parameters: &mut parameters,
            first: (rule.moments() > 0).then_some(&mut first),
            second: (rule.moments() > 1).then_some(&mut second),
        };
        optimizer_update(rule, &control, 0.05, memory);
    }
    assert_eq!(control[2..4], [T::of(5.0), T::ONE]);
    parameters
}

#[test]
fn updates_equal_the_formulas_of_torch() {
    for rule in rules() {
        for len in [1, 33, 8193] {
            let mut states: Vec<[f64; 3]> =
                normal(1, len).into_iter().map(|p| [p, 0.0, 0.0]).collect();
            for (t, step) in [0, 1, 2, 4, 5].into_iter().enumerate() {
                let gradients = normal(10 + step, len);
                let norm = gradients.iter().map(|g| g * g).sum::<f64>().sqrt();
                let factor = (0.5 / (norm + 1e-6)).min(1.0);
                for (state, g) in states.iter_mut().zip(gradients) {
                    naive(rule, t as i32 + 1, f64::from(0.05f32), factor * g, state);
                }
            }
            let expected: Vec<f64> = states.iter().map(|state| state[0]).collect();
            assert_close(&run_steps::<f64>(rule, len), &expected, 1e-12, 1e-12);
            assert_close(&run_steps::<f32>(rule, len), &expected, 1e-5, 1e-5);
        }
    }
}

#[test]
fn accumulation_starts_over_at_the_first_micro_step() {
    let mut sum = vec![f64::NAN; 3];
    grad_accumulate(&[1.0, 2.0, 3.0], 0.25, true, &mut sum);
    assert_eq!(sum, [0.25, 0.5, 0.75]);
    grad_accumulate(&[4.0, 4.0, 4.0], 0.75, false, &mut sum);
    assert_eq!(sum, [3.25, 3.5, 3.75]);
}
