use super::*;
use crate::cpu::testing::{convert, in_pools};
use crate::nn::beta::midpoint_quantiles;
use crate::testing::{assert_close, normal};

fn header(step: u32) -> StepHeader {
    StepHeader { count: 1, step, seed_low: 77, seed_high: 3, ..Default::default() }
}

fn draw(kind: MixKind, plane: [usize; 2], table: &[f64], header: &StepHeader) -> Vec<f64> {
    let mut mix = vec![f64::NAN; 8];
    mix_draw(kind, plane, table, header, &mut mix);
    mix
}

/// Pearson's statistic of counts that should all be the same.
fn chi_square(counts: &[u32]) -> f64 {
    let mean = counts.iter().sum::<u32>() as f64 / counts.len() as f64;
    counts.iter().map(|&count| (f64::from(count) - mean).powi(2) / mean).sum()
}

/// The value that χ² with so many degrees of freedom exceeds once in 10⁴ draws (Wilson and Hilferty, 1931).
fn chi_square_bound(freedom: usize) -> f64 {
    let k = freedom as f64;
    k * (1.0 - 2.0 / (9.0 * k) + 3.72 * (2.0 / (9.0 * k)).sqrt()).powi(3)
}

#[test]
fn shares_have_the_moments_of_beta() {
    for alpha in [0.2, 1.0, 8.0] {
        let table = midpoint_quantiles(alpha, MIX_QUANTILES);
        let n = 100_000;
        let shares: Vec<f64> =
            (0..n).map(|step| draw(MixKind::Mixup, [1, 1], &table, &header(step))[0]).collect();
        let mean = shares.iter().sum::<f64>() / f64::from(n);
        let variance = shares.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        let expected = 0.25 / (2.0 * alpha + 1.0);
        // Four standard errors; the fourth central moment of a share is at most a quarter of its variance.
        let error = 4.0 / f64::from(n).sqrt();
        assert!((mean - 0.5).abs() < error * expected.sqrt(), "{alpha}: {mean}");
        assert!((variance - expected).abs() < error * (0.25 * expected).sqrt(), "{variance}");
    }
}

#[test]
fn centres_are_uniform_and_independent_of_share_and_coin() {
    let [height, width] = [7, 5];
    // Boxes without area show their centre.
    let table = vec![0.0; 2 * MIX_QUANTILES];
    let mut cells = vec![0u32; height * width];
    let mut coins = [0u32; 2];
    let mut rows_by_half = vec![0u32; 2 * height];
    // Which half of the table a draw takes is shown by one of mixup with the same header.
    let halves: Vec<f64> = (0..MIX_QUANTILES).map(|i| (2 * i / MIX_QUANTILES) as f64).collect();
    for step in 0..60_000 {
        let header = header(step);
        let mix = draw(MixKind::Either, [height, width], &table, &header);
        coins[mix[1] as usize] += 1;
        let mix = draw(MixKind::Cutmix, [height, width], &table[..MIX_QUANTILES], &header);
        assert_eq!(mix[0], 1.0);
        assert_eq!((mix[2], mix[4]), (mix[3], mix[5]));
        let (row, column) = (mix[2] as usize, mix[4] as usize);
        cells[row * width + column] += 1;
        let half = draw(MixKind::Mixup, [1, 1], &halves, &header)[0] as usize;
        rows_by_half[half * height + row] += 1;
    }
    for (what, counts) in
        [("cells", &cells[..]), ("coins", &coins), ("rows by half", &rows_by_half)]
    {
        let found = chi_square(counts);
        assert!(found < chi_square_bound(counts.len() - 1), "{what}: {found} of {counts:?}");
    }
}

/// timm's `rand_bbox`, in floating point.
#[test]
fn boxes_are_those_of_the_formula() {
    for [height, width] in [[32, 32], [7, 5], [1, 1], [224, 160]] {
        let shares = midpoint_quantiles(0.7, MIX_QUANTILES);
        let sides: Vec<f64> =
            shares.iter().map(|share| ((1.0 - share).sqrt() * 65536.0).round()).collect();
        let ratio: Vec<f64> = sides.iter().map(|side| side / 65536.0).collect();
        for step in 0..2000 {
            let mix = draw(MixKind::Cutmix, [height, width], &sides, &header(step));
            // The entry and the centre, by draws that show them.
            let entry: Vec<f64> = (0..MIX_QUANTILES).map(|i| i as f64).collect();
            let entry = draw(MixKind::Mixup, [1, 1], &entry, &header(step))[0] as usize;
            let none = vec![0.0; MIX_QUANTILES];
            let centre = draw(MixKind::Cutmix, [height, width], &none, &header(step));
            let ends = |length: usize, centre: f64| {
                let half = ((length as f64 * ratio[entry]) as i64).div_euclid(2);
                let clip = |x: i64| x.clamp(0, length as i64) as f64;
                [clip(centre as i64 - half), clip(centre as i64 + half)]
            };
            let ([y0, y1], [x0, x1]) = (ends(height, centre[2]), ends(width, centre[4]));
            assert_eq!(mix[1..6], [1.0, y0, y1, x0, x1], "step {step} of {height} × {width}");
            let kept = 1.0 - (y1 - y0) * (x1 - x0) / (height * width) as f64;
            assert_close(&mix[..1], &[kept], 1e-12, 0.0);
        }
    }
}

#[test]
fn draws_follow_step_seed_and_micro_step_and_nothing_else() {
    let table = midpoint_quantiles(1.0, MIX_QUANTILES);
    let of = |header: StepHeader| draw(MixKind::Mixup, [1, 1], &table, &header);
    let first = of(header(5));
    assert_eq!(first, of(StepHeader { count: 9, lr: 3.0, weight: 0.5, ..header(5) }));
    let others = [
        header(6),
        StepHeader { seed_low: 78, ..header(5) },
        StepHeader { seed_high: 4, ..header(5) },
        StepHeader { micro_step: 1, ..header(5) },
    ];
    for other in others {
        assert_ne!(first, of(other), "{other:?}");
    }
}

const MIXUP: [f64; 8] = [0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
const CUTMIX: [f64; 8] = [0.5, 1.0, 1.0, 3.0, 0.0, 2.0, 0.0, 0.0];

fn mixed<T: Real>(x: &[f64], words: &[f64], rows: usize, valid: usize) -> Vec<T> {
    let mut y = vec![T::of(f64::NAN); x.len()];
    mix(&convert::<T>(x), &convert::<T>(words), rows, [3, 4], valid, &mut y);
    y
}

#[test]
fn samples_are_mixed_with_their_mirror() {
    let plane = 12;
    for (rows, channels, valid) in [(1usize, 1, 1usize), (5, 2, 5), (5, 3, 4), (6, 1, 1)] {
        let row = plane * channels;
        let x = normal(1, rows * row);
        let expected = |words: &[f64]| -> Vec<f64> {
            let each = |at: usize| {
                let (i, pixel) = (at / row, at % plane);
                let Some(mirror) = (valid - 1).checked_sub(i) else { return x[at] };
                let other = x[mirror * row + at % row];
                let inside = words[2] <= (pixel / 4) as f64
                    && ((pixel / 4) as f64) < words[3]
                    && words[4] <= (pixel % 4) as f64
                    && ((pixel % 4) as f64) < words[5];
                match words[1] == 1.0 {
                    true if inside => other,
                    true => x[at],
                    false => words[0] * x[at] + (1.0 - words[0]) * other,
                }
            };
            (0..rows * row).map(each).collect()
        };
        assert_close(&mixed::<f64>(&x, &MIXUP, rows, valid), &expected(&MIXUP), 1e-14, 0.0);
        assert_close(&mixed::<f32>(&x, &MIXUP, rows, valid), &expected(&MIXUP), 1e-6, 1e-6);
        assert_eq!(mixed::<f64>(&x, &CUTMIX, rows, valid), expected(&CUTMIX));
    }
}

#[test]
fn threads_change_no_bit() {
    let x = convert::<f32>(&normal(2, 100 * 240));
    in_pools(|| {
        let mut y = vec![f32::NAN; x.len()];
        mix(&x, &convert::<f32>(&MIXUP), 100, [3, 4], 97, &mut y);
        y
    });
}

#[test]
fn targets_are_mixed_as_the_samples_are() {
    for smoothing in [0.0, 0.1] {
        let (target, classes, valid) = ([2u32, 0, 1, 3], 4, 3);
        let mut found = vec![f64::NAN; 16];
        soft_target(&target, &MIXUP, classes, smoothing, valid, &mut found);
        let hit = |class: u32, k: usize| {
            smoothing / 4.0 + if class as usize == k { 1.0 - smoothing } else { 0.0 }
        };
        let mut expected: Vec<f64> = (0..12)
            .map(|at| {
                let (i, k) = (at / 4, at % 4);
                0.3 * hit(target[i], k) + 0.7 * hit(target[valid - 1 - i], k)
            })
            .collect();
        expected.resize(16, 0.0);
        assert_close(&found, &expected, 1e-14, 0.0);
    }
}
