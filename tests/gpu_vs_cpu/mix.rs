//! Mixup, cutmix, and the loss against mixed targets.

use inflight::batch::StepHeader;
use inflight::graph::op::{MIX_LEN, MIX_QUANTILES, MixKind, Op};
use inflight::nn::beta::midpoint_quantiles;

use crate::bench::Bench;
use crate::{below, counts, header, normal};

/// λ 0.3, and a box of rows 1 to 3 and columns 0 to 2.
const MIXUP: [f32; MIX_LEN] = [0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
const CUTMIX: [f32; MIX_LEN] = [0.5, 1.0, 1.0, 3.0, 0.0, 2.0, 0.0, 0.0];

#[test]
fn mix_draw() {
    let shares = midpoint_quantiles(0.4, MIX_QUANTILES);
    let sides = shares.iter().map(|share| ((1.0 - share).sqrt() * 65536.0).round() as f32);
    let shares: Vec<f32> = shares.iter().map(|&share| share as f32).collect();
    let sides: Vec<f32> = sides.collect();
    let both = [&shares[..], &sides].concat();
    let cases = [
        (MixKind::Mixup, [1, 1], &shares),
        (MixKind::Cutmix, [7, 5], &sides),
        (MixKind::Either, [224, 160], &both),
        (MixKind::Either, [1, 65535], &both),
    ];
    for (kind, [height, width], table) in cases {
        for step in 0..8 {
            let mut bench = Bench::new(1, StepHeader { step, micro_step: step % 3, ..header(1) });
            let h = bench.header();
            let table = bench.f32(&[table.len()], table);
            let mix = bench.output(&[MIX_LEN]);
            bench.push(Op::MixDraw { kind, height, width }, &[h, table], &[mix]);
            bench.check(1e-7, 1e-6);
            // All but λ is exact.
            let expected = bench.on_cpu();
            for found in bench.on_both() {
                assert_eq!(found[0][1..], expected[0][1..], "{kind:?} at step {step}");
            }
        }
    }
}

#[test]
fn mix() {
    for (shape, words) in [
        (vec![1, 1, 3, 4], MIXUP),
        (vec![7, 3, 3, 4], MIXUP),
        (vec![7, 3, 3, 4], CUTMIX),
        (vec![6, 1, 5, 3], CUTMIX),
        (vec![65, 17], MIXUP),
        (vec![2, 3, 33, 31], CUTMIX),
    ] {
        let len: usize = shape.iter().product();
        for count in counts(shape[0]) {
            let mut bench = Bench::new(shape[0], header(count));
            let x = bench.f32(&shape, &normal(1, len));
            let mix = bench.f32(&[MIX_LEN], &words);
            let h = bench.header();
            let y = bench.output(&shape);
            bench.push(Op::Mix, &[x, mix, h], &[y]);
            bench.check(1e-6, 1e-6);
        }
    }
}

#[test]
fn soft_target() {
    for (rows, classes) in [(1, 1), (63, 10), (64, 10), (65, 3), (3, 1000)] {
        for (count, smoothing) in counts(rows).into_iter().zip([0.1, 0.0, 0.3]) {
            let mut bench = Bench::new(rows, header(count));
            let target = bench.u32(&[rows], &below(2, classes as u64, rows));
            let mix = bench.f32(&[MIX_LEN], &MIXUP);
            let h = bench.header();
            let t = bench.output(&[rows, classes]);
            bench.push(Op::SoftTarget { smoothing, classes }, &[target, mix, h], &[t]);
            bench.check(1e-7, 1e-6);
        }
    }
}

#[test]
fn soft_cross_entropy() {
    for (rows, classes) in [(1, 1), (63, 10), (64, 10), (65, 3), (5, 64), (3, 1000)] {
        for (count, gradient) in counts(rows).into_iter().zip([true, true, false]) {
            let mut bench = Bench::new(rows, header(count));
            let values: Vec<f32> = normal(1, rows * classes).iter().map(|x| 10.0 * x).collect();
            let logits = bench.f32(&[rows, classes], &values);
            let squares: Vec<f32> = normal(2, rows * classes).iter().map(|x| x * x).collect();
            let weight = squares.iter().sum::<f32>() / rows as f32;
            let squares: Vec<f32> = squares.iter().map(|x| x / weight).collect();
            let t = bench.f32(&[rows, classes], &squares);
            let h = bench.header();
            let mut outputs = vec![bench.output(&[rows])];
            if gradient {
                outputs.push(bench.output(&[rows, classes]));
            }
            bench.push(Op::SoftCrossEntropy { gradient }, &[logits, t, h], &outputs);
            bench.check(2e-6, 1e-5);
        }
    }
}
