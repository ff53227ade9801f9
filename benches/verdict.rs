//! What verdicts predict, beside what comes true: for each planted bottleneck a run with it, the speed-up that its verdict
//! predicts without it, and a run from which the bottleneck is removed.
//!
//! `cargo bench --bench verdict` prints a line each: predicted and measured speed-up, and the error of the prediction. The
//! machine should have nothing else to do. Nothing here fails: what is measured goes into `docs/performance.md`.

use std::time::Duration;

use inflight::RunConfig;
use inflight::testing::planted::{self, Plants};

const STEPS: u64 = 150;
const ROUNDS: usize = 5;

/// What every stage takes beside the planted bottleneck: 3 ms a step on the device, 1.5 ms a step for two workers.
fn usual() -> Plants {
    Plants {
        compute: Duration::from_millis(3),
        augment: Duration::from_micros(190),
        ..Default::default()
    }
}

fn main() {
    let ms = Duration::from_millis;
    let config = planted::config(STEPS);
    let readers = RunConfig { readers: Some(2), ..config.clone() };
    let cases: [(&str, Plants, Plants, RunConfig); 9] = [
        ("disk", Plants { read: ms(1), ..usual() }, usual(), config.clone()),
        ("disk", Plants { read: ms(1), ..usual() }, usual(), readers),
        ("decode", Plants { make: ms(1), ..usual() }, usual(), config.clone()),
        (
            "decode",
            Plants { picture: 700, ..usual() },
            Plants { picture: 8, ..usual() },
            config.clone(),
        ),
        (
            "augment",
            Plants { augment: ms(1), ..usual() },
            Plants { augment: Duration::ZERO, ..usual() },
            config.clone(),
        ),
        ("upload", Plants { copy: ms(8), ..usual() }, usual(), config.clone()),
        (
            "gpu",
            Plants { compute: ms(8), ..usual() },
            Plants { compute: Duration::ZERO, ..usual() },
            config.clone(),
        ),
        ("launch", Plants { launch: ms(8), ..usual() }, usual(), config.clone()),
        ("compile", Plants { compile: ms(1500), ..usual() }, usual(), config),
    ];
    println!(
        "{:<10} {:<10} {:>10} {:>10} {:>8}   rounds",
        "planted", "named", "predicted", "measured", "error"
    );
    for (name, with, without, config) in cases {
        let rounds: Vec<(String, f64, f64)> =
            (0..ROUNDS).map(|_| round(name, &with, &without, &config)).collect();
        let median = |of: fn(&(String, f64, f64)) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (predicted, measured) = (median(|r| r.1), median(|r| r.2));
        let each: Vec<String> =
            rounds.iter().map(|(_, p, m)| format!("{:+.1}", 100.0 * (p / m - 1.0))).collect();
        println!(
            "{name:<10} {:<10} {predicted:>10.2} {measured:>10.2} {:>7.1}%   {}",
            rounds[0].0,
            100.0 * (predicted / measured - 1.0),
            each.join(" "),
        );
    }
}

/// The bottleneck as named, the speed-up as predicted, and as measured.
fn round(name: &str, with: &Plants, without: &Plants, config: &RunConfig) -> (String, f64, f64) {
    let slow = planted::run(with, config).expect("runs");
    let fast = planted::run(without, config).expect("runs");
    let took = |verdict: &inflight::report::verdict::Verdict| match name {
        // It comes before the loop.
        "compile" => verdict.actual_s + verdict.time_s["compile"],
        _ => verdict.actual_s,
    };
    let measured = took(&slow.verdict) / took(&fast.verdict);
    (slow.verdict.bottleneck, slow.verdict.speedup_without_bottleneck, measured)
}
