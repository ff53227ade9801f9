//! Losses and metrics.

use inflight::graph::op::Op;

use crate::bench::Bench;
use crate::{below, counts, header, normal};

const ROWS_AND_WIDTHS: [(usize, usize); 6] =
    [(1, 1), (63, 10), (64, 10), (65, 3), (5, 64), (3, 1000)];

#[test]
fn cross_entropy() {
    for (rows, classes) in ROWS_AND_WIDTHS {
        for (count, (smoothing, gradient)) in
            counts(rows).into_iter().zip([(0.0, true), (0.1, true), (0.1, false)])
        {
            let mut bench = Bench::new(rows, header(count));
            let values: Vec<f32> = normal(1, rows * classes).iter().map(|x| 10.0 * x).collect();
            let logits = bench.f32(&[rows, classes], &values);
            let target = bench.u32(&[rows], &below(2, classes as u64, rows));
            let h = bench.header();
            let mut outputs = vec![bench.output(&[rows])];
            if gradient {
                outputs.push(bench.output(&[rows, classes]));
            }
            let op = Op::CrossEntropy { smoothing, gradient, per_sample: 1, first: 0 };
            bench.push(op, &[logits, target, h], &outputs);
            bench.check(1e-6, 1e-5);
        }
    }
}

#[test]
fn cross_entropy_of_huge_logits_stays_finite() {
    let mut bench = Bench::new(2, header(2));
    let logits = bench.f32(&[2, 3], &[1e4, -1e4, 0.0, -3e4, -3e4, -3e4]);
    let target = bench.u32(&[2], &[1, 2]);
    let h = bench.header();
    let outputs = [bench.output(&[2]), bench.output(&[2, 3])];
    let op = Op::CrossEntropy { smoothing: 0.0, gradient: true, per_sample: 1, first: 0 };
    bench.push(op, &[logits, target, h], &outputs);
    bench.check(1e-6, 1e-5);
}

/// Text: each sample has several rows, and a partial batch has padding behind whole samples.
#[test]
fn cross_entropy_of_tokens() {
    for (samples, tokens, vocabulary) in
        [(1, 1, 1), (5, 13, 10), (3, 64, 65), (2, 3, 1000), (1, 2, 50_257)]
    {
        for count in counts(samples) {
            let rows = samples * tokens;
            let mut bench = Bench::new(samples, header(count));
            let values: Vec<f32> = normal(1, rows * vocabulary).iter().map(|x| 5.0 * x).collect();
            let logits = bench.f32(&[rows, vocabulary], &values);
            let target = bench.u32(&[rows], &below(2, vocabulary as u64, rows));
            let h = bench.header();
            let outputs = [bench.output(&[rows]), bench.output(&[rows, vocabulary])];
            let op =
                Op::CrossEntropy { smoothing: 0.0, gradient: true, per_sample: tokens, first: 0 };
            bench.push(op, &[logits, target, h], &outputs);
            bench.check(1e-6, 1e-5);
            // The twin itself: rows of padding are 0, all others not.
            let found = bench.on_cpu();
            let padded = count * tokens;
            assert!(found[0][padded..].iter().all(|&loss| loss == 0.0));
            assert!(vocabulary == 1 || found[0][..padded].iter().all(|&loss| loss > 0.0));
            assert!(found[1][padded * vocabulary..].iter().all(|&slope| slope == 0.0));
        }
    }
}

/// Some rows of a batch, whose padding begins before, within or behind them.
#[test]
fn cross_entropy_of_a_part_of_a_batch() {
    let (samples, tokens, vocabulary, first, rows) = (5, 13, 33, 20, 30);
    for count in 1..=samples {
        let mut bench = Bench::new(samples, header(count));
        let values: Vec<f32> = normal(1, rows * vocabulary).iter().map(|x| 5.0 * x).collect();
        let logits = bench.f32(&[rows, vocabulary], &values);
        let target = bench.u32(&[rows], &below(2, vocabulary as u64, rows));
        let h = bench.header();
        let outputs = [bench.output(&[rows]), bench.output(&[rows, vocabulary])];
        let op = Op::CrossEntropy { smoothing: 0.1, gradient: true, per_sample: tokens, first };
        bench.push(op, &[logits, target, h], &outputs);
        bench.check(1e-6, 1e-5);
        let valid = (count * tokens).saturating_sub(first).min(rows);
        bench.on_both().into_iter().for_each(|found| {
            assert!(found[0][valid..].iter().all(|&loss| loss == 0.0));
            assert!(found[0][..valid].iter().all(|&loss| loss > 0.0));
        });
    }
}

#[test]
fn mean_squared_error() {
    for (rows, d) in ROWS_AND_WIDTHS {
        for (count, gradient) in counts(rows).into_iter().zip([true, true, false]) {
            let mut bench = Bench::new(rows, header(count));
            let x = bench.f32(&[rows, d], &normal(1, rows * d));
            let target = bench.f32(&[rows, d], &normal(2, rows * d));
            let h = bench.header();
            let mut outputs = vec![bench.output(&[rows])];
            if gradient {
                outputs.push(bench.output(&[rows, d]));
            }
            bench.push(Op::MeanSquaredError { gradient }, &[x, target, h], &outputs);
            bench.check(1e-6, 1e-5);
        }
    }
}

#[test]
fn accuracy() {
    for (rows, classes) in ROWS_AND_WIDTHS {
        for count in counts(rows) {
            let mut bench = Bench::new(rows, header(count));
            // Few different values, so that rows hold several maxima, of which the first counts.
            let values: Vec<f32> = below(1, 4, rows * classes).iter().map(|&x| x as f32).collect();
            let logits = bench.f32(&[rows, classes], &values);
            let target = bench.u32(&[rows], &below(2, classes.min(3) as u64, rows));
            let h = bench.header();
            let correct = bench.output(&[rows]);
            bench.push(Op::Accuracy, &[logits, target, h], &[correct]);
            bench.check(0.0, 0.0);
        }
    }
}

#[test]
fn step_metrics() {
    for rows in [1, 63, 64, 65, 1000] {
        for count in counts(rows) {
            for accuracy in [false, true] {
                let mut bench = Bench::new(rows, header(count));
                // What the losses leave in rows of padding.
                let padded = |mut values: Vec<f32>| {
                    values[count..].fill(0.0);
                    values
                };
                let mut inputs = vec![bench.f32(&[rows], &padded(normal(1, rows)))];
                if accuracy {
                    let correct = below(2, 2, rows).iter().map(|&x| x as f32).collect();
                    inputs.push(bench.f32(&[rows], &padded(correct)));
                }
                inputs.push(bench.header());
                let metrics = bench.output(&[4]);
                bench.push(Op::StepMetrics { accuracy, per_sample: 1 }, &inputs, &[metrics]);
                bench.check(1e-5, 1e-5);
            }
        }
    }
}

#[test]
fn step_metrics_of_tokens() {
    let (samples, tokens) = (5, 13);
    for count in counts(samples) {
        let mut losses = normal(1, samples * tokens);
        losses[count * tokens..].fill(0.0);
        let mut bench = Bench::new(samples, header(count));
        let inputs = [bench.f32(&[samples * tokens], &losses), bench.header()];
        let metrics = bench.output(&[4]);
        let op = Op::StepMetrics { accuracy: false, per_sample: tokens };
        bench.push(op, &inputs, &[metrics]);
        bench.check(1e-5, 1e-5);
    }
}
