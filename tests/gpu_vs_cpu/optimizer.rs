//! The optimizer.

use inflight::batch::{DType, StepHeader};
use inflight::graph::Arena;
use inflight::graph::op::{CONTROL_LEN, GRAD_PARTIALS, Op, UpdateRule};
use inflight::testing::assert_close;

use crate::bench::Bench;
use crate::{SIZES, header, normal};

const SGD: UpdateRule = UpdateRule::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.1 };
const MOMENTUM: UpdateRule = UpdateRule::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.1 };
const NESTEROV: UpdateRule = UpdateRule::Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.0 };
const ADAM: UpdateRule =
    UpdateRule::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, decoupled: false };
const ADAMW: UpdateRule =
    UpdateRule::Adam { beta1: 0.8, beta2: 0.99, eps: 1e-6, weight_decay: 0.1, decoupled: true };

/// Control words after a few applied updates: 1 - β₁ᵗ, 1 - β₂ᵗ, applied, skipped, norm, factor, apply,
/// skipped in a row, powers of two that the loss scale moved, applied since.
const CONTROL: [f32; CONTROL_LEN] = [0.271, 0.003, 3.0, 1.0, 2.0, 0.5, 1.0, 0.0, -3.0, 7.0];

#[test]
fn grad_squares() {
    for n in SIZES.into_iter().chain([70_000]) {
        let mut bench = Bench::new(1, header(1));
        let gradients = bench.f32(&[n], &normal(1, n));
        let partials = bench.output(&[GRAD_PARTIALS]);
        bench.push(Op::GradSquares, &[gradients], &[partials]);
        // How elements are shared among partial sums is each side's own affair: the sums must agree.
        bench.check_sum(1e-5);
    }
}

fn squares(key: u64) -> Vec<f32> {
    normal(key, GRAD_PARTIALS).iter().map(|x| x * x).collect()
}

#[test]
fn optimizer_control() {
    for (max_norm, scaled) in [(f32::INFINITY, false), (1.0, false), (1e6, false), (1e-3, true)] {
        for initial in [[0.0; CONTROL_LEN], CONTROL] {
            let mut bench = Bench::new(1, header(1));
            let partials = bench.f32(&[GRAD_PARTIALS], &squares(1));
            let control = bench.in_out(&[CONTROL_LEN], &initial);
            let op = Op::OptimizerControl { max_norm, beta1: 0.9, beta2: 0.999, scaled };
            bench.push(op, &[partials], &[control]);
            bench.check(1e-7, 1e-5);
        }
    }
}

#[test]
fn the_norm_is_that_of_all_stretches_of_gradients() {
    let mut bench = Bench::new(1, header(1));
    // As the compiler lays them: the partial sums of three stretches, one behind another.
    let all: Vec<f32> = [1, 2, 3].into_iter().flat_map(squares).collect();
    let partials = bench.f32(&[all.len()], &all);
    let control = bench.in_out(&[CONTROL_LEN], &CONTROL);
    let op = Op::OptimizerControl { max_norm: 1.0, beta1: 0.9, beta2: 0.999, scaled: false };
    bench.push(op, &[partials], &[control]);
    bench.check(0.0, 1e-5);
    let Some(results) = bench.on_gpu() else { return };
    let sum: f64 = all.into_iter().map(f64::from).sum();
    assert_close(&results[0][4..6], &[sum.sqrt(), 1.0 / sum.sqrt()], 0.0, 1e-5);
}

#[test]
fn a_norm_that_is_not_finite_skips_the_update() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut bench = Bench::new(1, header(1));
        let mut values = normal(1, GRAD_PARTIALS);
        values[200] = bad;
        let partials = bench.f32(&[GRAD_PARTIALS], &values);
        let control = bench.in_out(&[CONTROL_LEN], &CONTROL);
        let op = Op::OptimizerControl { max_norm: 1.0, beta1: 0.9, beta2: 0.999, scaled: false };
        bench.push(op, &[partials], &[control]);
        let Some(results) = bench.on_gpu() else { return };
        assert_eq!(results[0][..4], [0.271, 0.003, 3.0, 2.0], "{bad}");
        assert!(!results[0][4].is_finite(), "{bad}");
        assert_eq!(results[0][5..], [1.0, 0.0, 1.0, -3.0, 7.0], "{bad}");
    }
}

/// Control after a decision over these partial sums, from control whose loss scale moved by `moved` and
/// stood for `applied` updates.
fn scaled_control(partials: &[f32], moved: f32, applied: f32) -> Option<Vec<f32>> {
    let mut initial = CONTROL;
    initial[8..].copy_from_slice(&[moved, applied]);
    let mut bench = Bench::new(1, header(1));
    let partials = bench.f32(&[partials.len()], partials);
    let control = bench.in_out(&[CONTROL_LEN], &initial);
    let op = Op::OptimizerControl { max_norm: 1.0, beta1: 0.9, beta2: 0.999, scaled: true };
    bench.push(op, &[partials], &[control]);
    let gpu = bench.on_gpu()?.remove(0);
    let cpu = bench.on_cpu().remove(0);
    // Without the norm, which may be infinite.
    assert_close(&[&gpu[..4], &gpu[5..]].concat(), &[&cpu[..4], &cpu[5..]].concat(), 0.0, 1e-5);
    Some(gpu)
}

#[test]
fn the_loss_scale_halves_after_an_overflow_and_doubles_after_many_updates() {
    let good = vec![1.0; GRAD_PARTIALS];
    let bad = [&good[1..], &[f32::INFINITY]].concat();
    let words = |partials: &[f32], moved, applied| {
        scaled_control(partials, moved, applied).map(|control| (control[6], control[8], control[9]))
    };
    let Some(first) = words(&good, -3.0, 7.0) else { return };
    assert_eq!(first, (1.0, -3.0, 8.0));
    assert_eq!(words(&good, -3.0, 1999.0), Some((1.0, -2.0, 0.0)));
    assert_eq!(words(&good, 8.0, 1999.0), Some((1.0, 8.0, 0.0)), "the largest");
    assert_eq!(words(&bad, -3.0, 7.0), Some((0.0, -4.0, 0.0)));
    assert_eq!(words(&bad, -16.0, 7.0), Some((0.0, -16.0, 0.0)), "the least");
    // A norm of 16 under a scale of 2^13.
    let control = scaled_control(&good, -3.0, 7.0).expect("an adapter was there");
    assert_close(&control[4..6], &[16.0 / 8192.0, 1.0 / 8192.0], 0.0, 1e-6);
}

#[test]
fn loss_scale() {
    for n in SIZES {
        for moved in [0.0, -16.0, 8.0] {
            let mut bench = Bench::new(1, header(1));
            // So small that the product fits 16 bits.
            let gradient: Vec<f32> = normal(1, n).iter().map(|x| x * 1e-4).collect();
            let dx = bench.f32(&[n], &gradient);
            let mut words = CONTROL;
            words[8] = moved;
            let control = bench.f32(&[CONTROL_LEN], &words);
            let y = bench.output(&[n]);
            bench.push(Op::LossScale, &[dx, control], &[y]);
            bench.check(0.0, 0.0);
        }
    }
}

/// Adds the update of `n` parameters by `rule`; the results are parameters and moments.
fn push_update(bench: &mut Bench, rule: UpdateRule, n: usize, control: &[f32]) {
    let gradients = bench.f32(&[n], &normal(1, n));
    let control = bench.f32(&[CONTROL_LEN], control);
    let h = bench.header();
    let mut outputs = vec![bench.in_out(&[n], &normal(2, n))];
    outputs.extend((0..rule.moments()).map(|i| {
        let moments: Vec<f32> = normal(3 + i as u64, n).iter().map(|x| x.abs()).collect();
        bench.in_out(&[n], &moments)
    }));
    bench.push(Op::OptimizerUpdate { rule }, &[gradients, control, h], &outputs);
}

#[test]
fn optimizer_update() {
    for rule in [SGD, MOMENTUM, NESTEROV, ADAM, ADAMW] {
        for n in SIZES {
            let mut bench = Bench::new(1, header(1));
            push_update(&mut bench, rule, n, &CONTROL);
            bench.check(1e-6, 1e-5);
        }
    }
}

#[test]
fn nan_gradients_leave_parameters_and_moments_untouched() {
    for rule in [SGD, MOMENTUM, NESTEROV, ADAM, ADAMW] {
        let n = 65;
        let mut bench = Bench::new(1, header(1));
        let mut values = normal(1, n);
        values[3] = f32::NAN;
        let gradients = bench.f32(&[n], &values);
        let partials = bench.between(&[GRAD_PARTIALS], DType::F32);
        let control = bench.in_out_at(Arena::State, &[CONTROL_LEN], &CONTROL);
        let h = bench.header();
        let initial: Vec<Vec<f32>> =
            (0..=rule.moments()).map(|i| normal(5 + i as u64, n)).collect();
        let outputs: Vec<_> = initial.iter().map(|values| bench.in_out(&[n], values)).collect();
        let decide = Op::OptimizerControl {
            max_norm: f32::INFINITY,
            beta1: 0.9,
            beta2: 0.999,
            scaled: false,
        };
        bench.push(Op::GradSquares, &[gradients], &[partials]);
        bench.push(decide, &[partials], &[control]);
        bench.push(Op::OptimizerUpdate { rule }, &[gradients, control, h], &outputs);
        let Some(results) = bench.on_gpu() else { return };
        assert_eq!(results[1..], initial[..], "{rule:?}");
    }
}

#[test]
fn moving_average() {
    // The first update that was applied, a later one, and one that was skipped.
    for (applied, apply) in [(1.0, 1.0), (3.0, 1.0), (1.0, 0.0)] {
        let mut words = CONTROL;
        (words[2], words[6]) = (applied, apply);
        for n in SIZES {
            let mut bench = Bench::new(1, header(1));
            let parameters = bench.f32(&[n], &normal(1, n));
            let control = bench.f32(&[CONTROL_LEN], &words);
            let average = bench.in_out(&[n], &normal(2, n));
            bench.push(Op::MovingAverage { share: 0.3 }, &[parameters, control], &[average]);
            bench.check(1e-6, 1e-6);
            let expected = match (applied, apply) {
                (1.0, 1.0) => normal(1, n),
                (_, 1.0) => continue,
                _ => normal(2, n),
            };
            bench.on_both().into_iter().for_each(|found| assert_eq!(found[0], expected));
        }
    }
}

#[test]
fn grad_accumulate() {
    for n in SIZES {
        for micro_step in [0, 1] {
            let mut bench = Bench::new(1, StepHeader { micro_step, ..header(1) });
            let gradients = bench.f32(&[n], &normal(1, n));
            let h = bench.header();
            let sum = bench.in_out(&[n], &normal(2, n));
            bench.push(Op::GradAccumulate, &[gradients, h], &[sum]);
            bench.check(1e-6, 1e-6);
        }
    }
}

#[test]
fn add_to() {
    for n in SIZES {
        let mut bench = Bench::new(1, header(1));
        let x = bench.f32(&[n], &normal(1, n));
        let sum = bench.in_out(&[n], &normal(2, n));
        bench.push(Op::AddTo, &[x], &[sum]);
        bench.check(1e-7, 1e-7);
        let expected: Vec<f32> =
            normal(2, n).iter().zip(normal(1, n)).map(|(a, b)| a + b).collect();
        bench.on_both().into_iter().for_each(|found| assert_eq!(found[0], expected));
    }
}

#[test]
fn muon_momentum() {
    for nesterov in [false, true] {
        for apply in [1.0, 0.0] {
            for n in SIZES {
                let mut words = CONTROL;
                words[6] = apply;
                let mut bench = Bench::new(1, header(1));
                let gradients = bench.f32(&[1, n], &normal(1, n));
                let control = bench.f32(&[CONTROL_LEN], &words);
                let direction = bench.output(&[1, n]);
                let momentum = bench.in_out(&[1, n], &normal(2, n));
                let op = Op::MuonMomentum { momentum: 0.75, nesterov };
                bench.push(op, &[gradients, control], &[direction, momentum]);
                bench.check(1e-6, 1e-5);
            }
        }
    }
}

#[test]
fn muon_normalize() {
    // The last is below the least norm.
    for (scale, squares) in [(1.0, 4.0), (1e-8, 1e-16)] {
        for n in SIZES {
            let mut bench = Bench::new(1, header(1));
            let values: Vec<f32> = normal(1, n).iter().map(|x| scale * x).collect();
            let x = bench.f32(&[1, n], &values);
            let squares = bench.f32(&[1], &[squares]);
            let y = bench.output(&[1, n]);
            bench.push(Op::MuonNormalize, &[x, squares], &[y]);
            bench.check(1e-7, 1e-5);
        }
    }
}

#[test]
fn newton_schulz() {
    for n in [1, 2, 7, 8, 9, 65] {
        let mut bench = Bench::new(1, header(1));
        let [gram, square] = [1, 2].map(|key| bench.f32(&[n, n], &normal(key, n * n)));
        let y = bench.output(&[n, n]);
        bench.push(Op::NewtonSchulz, &[gram, square], &[y]);
        bench.check(1e-6, 1e-5);
    }
}

#[test]
fn muon_update() {
    for apply in [1.0, 0.0] {
        for n in SIZES {
            let mut words = CONTROL;
            words[6] = apply;
            let mut bench = Bench::new(1, header(1));
            let direction = bench.f32(&[1, n], &normal(1, n));
            let control = bench.f32(&[CONTROL_LEN], &words);
            let h = bench.header();
            let parameters = bench.in_out(&[1, n], &normal(2, n));
            let op = Op::MuonUpdate { weight_decay: 3.0, scale: 20.0 };
            bench.push(op, &[direction, control, h], &[parameters]);
            bench.check(1e-6, 1e-5);
        }
    }
}
