//! Where the time of a run went, what bounded it, and the one flag to change.
//!
//! The model: `prepare` (workers fill slots), `launch` (the device thread records and submits) and `gpu` (the
//! device computes) overlap, so a run cannot take less than the slowest of them alone. Where they share the
//! same cores (the CPU twins, a software adapter) they cannot overlap beyond those cores either: all the
//! processor time of the run, divided by the cores, is another bound. Time that a stage sleeps or waits for a
//! disk takes no core, and so is not in that bound. Compiling comes before the loop and overlaps with nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Measured by the pipeline while it runs; all in seconds, summed over the run. Workers' times are summed
/// over threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StageTimes {
    /// Wall time of the training loop, without opening and compiling.
    pub wall_s: f64,
    /// Reading the data set from disk before the loop, as sources that lie in memory do.
    pub disk_s: f64,
    /// Workers reading and decoding samples, summed over threads.
    pub read_s: f64,
    /// Workers transforming samples, summed over threads.
    pub augment_s: f64,
    /// Workers writing samples into slots, summed over threads.
    pub upload_s: f64,
    /// The prepare thread filling slots (wall).
    pub prepare_busy_s: f64,
    /// The prepare thread waiting for an empty slot.
    pub prepare_wait_s: f64,
    /// The device thread waiting for a full slot with nothing in flight.
    pub starved_s: f64,
    /// The device thread recording and submitting.
    pub launch_s: f64,
    /// The device thread waiting for results with work in flight.
    pub device_wait_s: f64,
    /// The device busy with passes (GPU timestamps, or the twins' wall time).
    pub device_busy_s: f64,
    /// Opening adapter and compiling.
    pub compile_s: f64,
    /// Processor time of the whole process during the loop, over all threads; 0 if unknown.
    pub processor_s: f64,
    /// Number of cores; 0 if unknown.
    pub cores: usize,
    /// Number of preparing workers.
    pub workers: usize,
    /// Number of slots; with a single one each stage waits for the one before.
    pub slots: usize,
    /// Passes run.
    pub passes: u64,
    /// Whether preparation and compute share the same cores (twins, software adapters).
    pub shared_cores: bool,
}

/// The verdict of a run, as in `verdict.json`; shown in plain words by [`Display`](fmt::Display).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Where the time went, in seconds, by name: `disk`, `decode`, `augment`, `upload`, `gpu`, `launch`,
    /// `compile`. Workers' times are divided by their number. Stages overlap, so the sum says nothing.
    pub time_s: BTreeMap<String, f64>,
    /// What held the run up: a key of `time_s`; `cores`, shared by all stages; or `overlap`, when each stage
    /// had time to spare and yet waited for another.
    pub bottleneck: String,
    /// What the loop would take with its slowest stage alone.
    pub ideal_s: f64,
    /// What the loop took.
    pub actual_s: f64,
    /// `ideal_s / actual_s`.
    pub efficiency: f64,
    /// Predicted speed-up of the run if the bottleneck took no time.
    pub speedup_without_bottleneck: f64,
    /// The one flag to change, with its reason.
    pub advice: String,
    /// Samples that could not be used.
    pub bad_samples: u64,
}

/// Below this share of the ideal, stages waited for each other and not for the slowest of them.
const OVERLAP_MIN: f64 = 0.8;

/// Seconds below which a prediction would divide by noise.
const LEAST_S: f64 = 1e-6;

impl Verdict {
    /// Judges a run.
    pub fn new(times: &StageTimes) -> Self {
        let bounds = Bounds::new(times);
        let actual_s = times.wall_s;
        let ideal_s = bounds.slowest().1.min(actual_s);
        let efficiency = if actual_s > 0.0 { ideal_s / actual_s } else { 1.0 };
        let bottleneck = bottleneck(times, &bounds, efficiency);
        Self {
            time_s: time_s(times),
            bottleneck: bottleneck.to_string(),
            ideal_s,
            actual_s,
            efficiency,
            speedup_without_bottleneck: speedup(times, &bounds, bottleneck, ideal_s),
            advice: advice(times, bottleneck),
            bad_samples: 0,
        }
    }
}

/// What each stage needs alone, in seconds.
struct Bounds {
    prepare_s: f64,
    launch_s: f64,
    gpu_s: f64,
    cores_s: f64,
}

impl Bounds {
    fn new(times: &StageTimes) -> Self {
        let shared = times.shared_cores && times.cores > 0;
        // Where compute holds the cores, filling a slot is mostly waiting for one of them.
        let thread_s = times.read_s + times.augment_s + times.upload_s;
        let worker_s = thread_s / times.workers.max(1) as f64;
        Self {
            prepare_s: if shared {
                times.prepare_busy_s.min(worker_s)
            } else {
                times.prepare_busy_s
            },
            launch_s: times.launch_s,
            gpu_s: times.device_busy_s,
            cores_s: if shared { times.processor_s / times.cores as f64 } else { 0.0 },
        }
    }

    /// The slowest; a stage by name goes before the cores it shares, since it can be named.
    fn slowest(&self) -> (&'static str, f64) {
        let rest =
            [("launch", self.launch_s), ("prepare", self.prepare_s), ("cores", self.cores_s)];
        rest.into_iter()
            .fold(("gpu", self.gpu_s), |max, next| if next.1 > max.1 { next } else { max })
    }
}

fn bottleneck(times: &StageTimes, bounds: &Bounds, efficiency: f64) -> &'static str {
    if times.compile_s > times.wall_s {
        return "compile";
    }
    if efficiency < OVERLAP_MIN {
        return "overlap";
    }
    match bounds.slowest().0 {
        "prepare" => slowest_of_prepare(times),
        name => name,
    }
}

/// Which part of preparation takes longest.
fn slowest_of_prepare(times: &StageTimes) -> &'static str {
    let (mut name, mut most_s) = ("decode", times.read_s);
    for (other, s) in [("augment", times.augment_s), ("upload", times.upload_s)] {
        if s > most_s {
            (name, most_s) = (other, s);
        }
    }
    name
}

/// How much faster the run would be without its bottleneck: bounded by what is then the slowest.
fn speedup(times: &StageTimes, bounds: &Bounds, bottleneck: &str, ideal_s: f64) -> f64 {
    let Bounds { prepare_s, launch_s, gpu_s, .. } = *bounds;
    if bottleneck == "compile" {
        return (times.compile_s + times.wall_s) / times.wall_s.max(LEAST_S);
    }
    let part = |s: f64| {
        let all_s = times.read_s + times.augment_s + times.upload_s;
        prepare_s * (1.0 - s / all_s.max(LEAST_S)).max(0.0)
    };
    let left_s = match bottleneck {
        "gpu" => prepare_s.max(launch_s),
        "launch" => prepare_s.max(gpu_s),
        "decode" => part(times.read_s).max(launch_s).max(gpu_s),
        "augment" => part(times.augment_s).max(launch_s).max(gpu_s),
        "upload" => part(times.upload_s).max(launch_s).max(gpu_s),
        "cores" => prepare_s.max(launch_s).max(gpu_s),
        _ => ideal_s,
    };
    (times.wall_s / left_s.max(LEAST_S)).max(1.0)
}

fn time_s(times: &StageTimes) -> BTreeMap<String, f64> {
    let workers = times.workers.max(1) as f64;
    [
        ("disk", times.disk_s),
        ("decode", times.read_s / workers),
        ("augment", times.augment_s / workers),
        ("upload", times.upload_s / workers),
        ("gpu", times.device_busy_s),
        ("launch", times.launch_s),
        ("compile", times.compile_s),
    ]
    .map(|(name, s)| (name.to_string(), s))
    .into()
}

fn advice(times: &StageTimes, bottleneck: &str) -> String {
    let more_workers = times.workers < times.cores;
    match bottleneck {
        "compile" => {
            "--epochs: opening the device and compiling took longer than training, once a run"
                .into()
        }
        "overlap" if times.slots == 1 => {
            "--sync: leave it out, it makes every stage wait for the one before".into()
        }
        "overlap" => format!(
            "--slots {}: no stage is always busy, and a longer ring evens out how they alternate",
            2 * times.slots
        ),
        "launch" => {
            "--batch-size: make it larger, recording a step takes longer than computing it".into()
        }
        "gpu" if times.shared_cores => {
            "--device: a GPU; the processor computes all the time, and preparation keeps up".into()
        }
        "gpu" => {
            "--device: a faster one; it computes all the time, and everything else keeps up".into()
        }
        "cores" => {
            "--device: a GPU; preparing and computing share the cores, and these are always busy"
                .into()
        }
        stage if more_workers => format!(
            "--workers {}: {stage} holds the device up, and {} of {} cores prepare",
            times.cores, times.workers, times.cores
        ),
        "augment" => "fewer or cheaper transforms: they hold the device up on all cores".into(),
        stage => format!("--workers: more than {}; {stage} holds the device up", times.workers),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |name| self.time_s.get(name).copied().unwrap_or(0.0);
        writeln!(
            f,
            "time: compute {:.2} s · launch {:.2} s · decode {:.2} s · augment {:.2} s · upload {:.2} s \
             (these overlap) · before them disk {:.2} s, compile {:.2} s",
            of("gpu"),
            of("launch"),
            of("decode"),
            of("augment"),
            of("upload"),
            of("disk"),
            of("compile"),
        )?;
        let bottleneck = match self.bottleneck.as_str() {
            "gpu" => "compute",
            "overlap" => "stages waiting for each other",
            "cores" => "cores that all stages share",
            other => other,
        };
        writeln!(
            f,
            "verdict: {:.2} s, of which the slowest stage alone would take {:.2} s ({:.0} %); \
             held up by {bottleneck}, without it {}",
            self.actual_s,
            self.ideal_s,
            100.0 * self.efficiency,
            times_faster(self.speedup_without_bottleneck),
        )?;
        write!(f, "to go faster: {}", self.advice)
    }
}

/// A prediction beyond this only says that nothing else takes any time.
const SPEEDUP_SHOWN_MAX: f64 = 20.0;

fn times_faster(speedup: f64) -> String {
    if speedup > SPEEDUP_SHOWN_MAX {
        format!("over {SPEEDUP_SHOWN_MAX:.0} times as fast")
    } else {
        format!("{speedup:.1} times as fast")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 passes of 10 ms on a GPU of its own, everything else small.
    fn gpu_run() -> StageTimes {
        StageTimes {
            wall_s: 10.2,
            disk_s: 0.3,
            read_s: 1.0,
            augment_s: 2.0,
            upload_s: 1.0,
            prepare_busy_s: 1.1,
            launch_s: 0.5,
            device_busy_s: 10.0,
            compile_s: 1.0,
            processor_s: 5.0,
            cores: 4,
            workers: 4,
            slots: 3,
            passes: 1000,
            ..Default::default()
        }
    }

    #[track_caller]
    fn expect(times: &StageTimes, bottleneck: &str, ideal_s: f64, speedup: f64, flag: &str) {
        let verdict = Verdict::new(times);
        assert_eq!(verdict.bottleneck, bottleneck, "{verdict:?}");
        assert!((verdict.ideal_s - ideal_s).abs() < 1e-9, "{verdict:?}");
        assert_eq!(verdict.actual_s, times.wall_s);
        assert!((verdict.efficiency - ideal_s / times.wall_s).abs() < 1e-9, "{verdict:?}");
        let found = verdict.speedup_without_bottleneck;
        assert!((found - speedup).abs() < 1e-9, "{found}, expected {speedup}");
        assert!(verdict.advice.starts_with(flag), "{}", verdict.advice);
    }

    #[test]
    fn bound_by_the_device() {
        expect(&gpu_run(), "gpu", 10.0, 10.2 / 1.1, "--device");
        let keys: Vec<String> = Verdict::new(&gpu_run()).time_s.into_keys().collect();
        assert_eq!(keys, ["augment", "compile", "decode", "disk", "gpu", "launch", "upload"]);
    }

    #[test]
    fn bound_by_preparation() {
        let times = StageTimes {
            read_s: 30.0,
            prepare_busy_s: 9.9,
            device_busy_s: 3.0,
            workers: 3,
            ..gpu_run()
        };
        // Without decoding, 3 of 33 thread seconds of preparation are left; the device is slower then.
        expect(&times, "decode", 9.9, 10.2 / 3.0, "--workers 4");
        let all_cores = StageTimes { workers: 4, augment_s: 31.0, ..times };
        let rest_s = 9.9 * (1.0 - 31.0 / 62.0);
        expect(&all_cores, "augment", 9.9, 10.2 / rest_s, "fewer or cheaper transforms");
    }

    #[test]
    fn bound_by_launching() {
        let times = StageTimes { launch_s: 10.1, device_busy_s: 4.0, ..gpu_run() };
        expect(&times, "launch", 10.1, 10.2 / 4.0, "--batch-size");
    }

    #[test]
    fn a_short_run_is_mostly_compiling() {
        let times = StageTimes { wall_s: 0.5, device_busy_s: 0.4, compile_s: 2.0, ..gpu_run() };
        let verdict = Verdict::new(&times);
        assert_eq!(verdict.bottleneck, "compile");
        assert!((verdict.speedup_without_bottleneck - 5.0).abs() < 1e-9);
        assert!(verdict.advice.starts_with("--epochs"));
    }

    #[test]
    fn shared_cores_add_up_instead_of_overlapping() {
        // Alone, preparation would take 4 s and compute 6 s on the same two cores: together 10 s, all of them
        // busy. On cores of its own preparation would have hidden behind compute.
        let times = StageTimes {
            wall_s: 10.2,
            read_s: 8.0,
            prepare_busy_s: 5.0,
            device_busy_s: 7.0,
            processor_s: 20.0,
            cores: 2,
            workers: 2,
            shared_cores: true,
            ..gpu_run()
        };
        expect(&times, "cores", 10.0, 10.2 / 7.0, "--device: a GPU");
        let apart = StageTimes { shared_cores: false, ..times };
        assert_eq!(Verdict::new(&apart).bottleneck, "overlap");
    }

    #[test]
    fn waiting_for_a_core_is_not_preparing() {
        let times =
            StageTimes { prepare_busy_s: 8.0, processor_s: 40.0, shared_cores: true, ..gpu_run() };
        // Workers worked for 4 s on 4 threads; the other 7 s went by until the twins let go of a core.
        expect(&times, "gpu", 10.0, 10.2 / 1.0, "--device: a GPU");
    }

    #[test]
    fn sleeping_preparation_takes_no_core() {
        // A disk makes preparation wait as long as the twins compute, one after the other.
        let sync = StageTimes {
            wall_s: 20.0,
            read_s: 20.0,
            prepare_busy_s: 10.0,
            device_busy_s: 10.0,
            processor_s: 20.0,
            cores: 2,
            workers: 2,
            slots: 1,
            shared_cores: true,
            ..gpu_run()
        };
        expect(&sync, "overlap", 10.0, 2.0, "--sync: leave it out");
        let overlapped = StageTimes { wall_s: 10.4, slots: 3, ..sync };
        assert!(Verdict::new(&overlapped).efficiency > 0.95);
    }

    #[test]
    fn stages_that_alternate_want_a_longer_ring() {
        let times = StageTimes { prepare_busy_s: 6.0, device_busy_s: 6.0, ..gpu_run() };
        expect(&times, "overlap", 6.0, 10.2 / 6.0, "--slots 6");
    }

    #[test]
    fn a_run_without_a_step_has_a_verdict_of_finite_numbers() {
        let verdict = Verdict::new(&StageTimes::default());
        assert!(verdict.efficiency.is_finite() && verdict.speedup_without_bottleneck.is_finite());
    }

    #[test]
    fn the_words_name_the_numbers() {
        let text = Verdict::new(&gpu_run()).to_string();
        assert!(
            text.contains("10.20 s, of which the slowest stage alone would take 10.00 s (98 %)"),
            "{text}"
        );
        assert!(text.contains("held up by compute, without it 9.3 times as fast"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
