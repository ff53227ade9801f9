//! The verdict names the bottleneck that was planted, and the flag that is for it.

use std::time::Duration;

use inflight::RunConfig;
use inflight::report::verdict::Verdict;
use inflight::testing::planted::{self, Plants};

/// Far more than anything else takes: what is named does not hang on how busy the machine is.
const SLOW: Duration = Duration::from_millis(24);

/// The same for a step of 16 samples, which two workers prepare.
const SLOW_SAMPLE: Duration = Duration::from_millis(3);

const STEPS: u64 = 24;

#[track_caller]
fn expect(plants: Plants, config: &RunConfig, bottleneck: &str, flag: &str) -> Verdict {
    let verdict = planted::run(&plants, config).expect("runs").verdict;
    assert_eq!(verdict.bottleneck, bottleneck, "{verdict:#?}");
    assert!(verdict.change.flag.starts_with(flag), "{verdict:#?}");
    let json = serde_json::to_string(&verdict).expect("JSON");
    assert_eq!(serde_json::from_str::<Verdict>(&json).expect("reads back"), verdict);
    verdict
}

#[test]
fn a_slow_disk() {
    let plants = Plants { read: SLOW_SAMPLE, ..Default::default() };
    let config = planted::config(STEPS);
    let verdict = expect(plants, &config, "disk", "--readers");
    assert!(verdict.time_s["disk"] > 10.0 * verdict.time_s["decode"], "{verdict:#?}");
    assert!(verdict.change.speedup.is_some_and(|speedup| speedup > 2.0), "{verdict:#?}");
    // Read ahead, by two at a time.
    let ahead = RunConfig { readers: Some(2), ..config.clone() };
    let verdict = expect(plants, &ahead, "disk", "--readers");
    assert_eq!(verdict.change.value.as_deref(), Some("8"));
    assert_eq!((verdict.stages[0].name.as_str(), verdict.stages[0].threads), ("disk", 2));
    // Where readers are found, keeping what was read is what is left, if it comes again.
    let found = RunConfig { readers: None, steps: Some(40), ..config };
    let slower = Plants { read: 10 * SLOW_SAMPLE, ..plants };
    let verdict = planted::run(&slower, &found).expect("runs").verdict;
    assert_ne!(verdict.change.flag, "--readers", "{verdict:#?}");
}

#[test]
fn slow_decoding() {
    let plants = Plants { picture: 1200, ..Default::default() };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let config = RunConfig { workers: cores, ..planted::config(48) };
    expect(plants, &config, "decode", "--cache");
    let one = RunConfig { workers: 1, ..planted::config(STEPS) };
    if cores > 1 {
        expect(plants, &one, "decode", "--workers");
    }
    let made = Plants { make: SLOW_SAMPLE, ..Default::default() };
    expect(made, &one, "decode", "--workers");
}

#[test]
fn slow_augmentation() {
    let plants = Plants { augment: SLOW_SAMPLE, ..Default::default() };
    let many = RunConfig { workers: 64, ..planted::config(STEPS) };
    expect(Plants { augment: 8 * SLOW_SAMPLE, ..plants }, &many, "augment", "--transforms");
    expect(plants, &RunConfig { workers: 1, ..many }, "augment", "--");
}

#[test]
fn a_slow_upload() {
    let plants = Plants { copy: SLOW, ..Default::default() };
    let verdict = expect(plants, &planted::config(STEPS), "upload", "--image-size");
    assert!(verdict.time_s["upload"] > 0.5 * verdict.actual_s, "{verdict:#?}");
}

#[test]
fn a_slow_device() {
    let plants = Plants { compute: SLOW, ..Default::default() };
    let verdict = expect(plants, &planted::config(STEPS), "gpu", "--device");
    assert!(verdict.steps.p50_s > 0.9 * SLOW.as_secs_f64(), "{verdict:#?}");
    assert_eq!(verdict.steps.count, STEPS - 1);
    let [empty, full, in_flight] = &verdict.queues[..] else { panic!("{verdict:#?}") };
    // Whatever is prepared waits for the device.
    assert!(in_flight.depth_mean > 1.0 && in_flight.depth_max <= in_flight.capacity);
    assert!(empty.waited_s > 10.0 * full.waited_s, "{verdict:#?}");
}

#[test]
fn tiny_kernels() {
    let plants = Plants { launch: SLOW, ..Default::default() };
    let verdict = expect(plants, &planted::config(STEPS), "launch", "--batch-size");
    assert_eq!(verdict.change.value.as_deref(), Some("32"));
}

#[test]
fn a_cold_compile() {
    let plants = Plants { compile: Duration::from_secs(1), ..Default::default() };
    let verdict = expect(plants, &planted::config(8), "compile", "--epochs");
    assert!(verdict.time_s["compile"] >= 1.0);
}

#[test]
fn stages_that_wait_for_each_other() {
    let plants = Plants { compute: SLOW, augment: SLOW_SAMPLE, ..Default::default() };
    let config = RunConfig { sync: true, slots: None, ..planted::config(STEPS) };
    expect(plants, &config, "overlap", "--sync=false");
    let verdict =
        planted::run(&plants, &RunConfig { sync: false, ..config }).expect("runs").verdict;
    assert_ne!(verdict.bottleneck, "overlap", "{verdict:#?}");
}
