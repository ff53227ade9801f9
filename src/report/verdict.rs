//! Where the time of a run went, what bounded it, and the one flag to change. The model of the bound is in `bound`, what
//! to change in `advice`. Opening and compiling come before the loop and overlap with nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::advice::Case;
pub use super::advice::Change;
use super::bound::Bounds;
use super::histogram::Quantiles;

/// Measured by the pipeline while it runs; all in seconds, summed over the run. Workers' and readers' times are summed
/// over threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StageTimes {
    /// Wall time of the training loop, without opening and compiling.
    pub wall_s: f64,
    /// Opening the data set before the loop, with the reading of sources that lie in memory.
    pub open_s: f64,
    /// Workers reading from sources that wait for a disk or a network, or waiting for those who read ahead.
    pub disk_s: f64,
    /// Workers making samples of other sources, and decoding.
    pub decode_s: f64,
    /// Workers transforming samples.
    pub augment_s: f64,
    /// Workers writing samples into slots.
    pub upload_s: f64,
    /// Processor time of the workers; 0 if unknown.
    pub prepare_cpu_s: f64,
    /// Readers reading ahead of the workers.
    pub readers_busy_s: f64,
    /// With batches being filled (wall).
    pub prepare_busy_s: f64,
    /// With none, for want of an empty slot (wall).
    pub prepare_wait_s: f64,
    /// The device thread waiting for a full slot with nothing in flight.
    pub starved_s: f64,
    /// The device thread recording and submitting.
    pub launch_s: f64,
    /// The device thread waiting for results with work in flight.
    pub device_wait_s: f64,
    /// The device copying slots, where it can be told apart.
    pub copy_s: f64,
    /// The device busy with passes (GPU timestamps, or the twins' wall time).
    pub device_busy_s: f64,
    /// Opening the adapter, tuning and compiling.
    pub compile_s: f64,
    /// Of that, tuning.
    pub tune_s: f64,
    /// Processor time of the whole process during the loop, over all threads; 0 if unknown.
    pub processor_s: f64,
    /// Number of cores; 0 if unknown.
    pub cores: usize,
    /// Number of preparing workers.
    pub workers: usize,
    /// Number of readers; 0 where workers read themselves.
    pub readers: usize,
    /// Number of slots; with a single one each stage waits for the one before.
    pub slots: usize,
    /// Passes run.
    pub passes: u64,
    /// Whether preparation and compute share the same cores (twins, software adapters).
    pub shared_cores: bool,
    /// Training steps from result to result.
    pub steps: Quantiles,
    /// How deep the queues between the stages were, as each pass was submitted.
    pub queues: Depths,
    /// What the run was set to, as far as advice depends on it.
    pub settings: Settings,
}

/// What a run was set to, as far as advice depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Samples a batch.
    pub batch_size: usize,
    /// Whether the number of readers was given, and not found.
    pub readers_given: bool,
    /// Whether samples are image files.
    pub images: bool,
    /// Whether keeping samples in memory would save anything: epochs come again, and nothing is kept yet.
    pub could_cache: bool,
    /// Whether the device could do transforms that the workers do.
    pub could_frame: bool,
    /// Whether the device has 16-bit floats, and they are not used.
    pub could_use_half: bool,
}

/// The queues between the stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Depths {
    /// Empty slots, on their way to preparation.
    pub empty: Depth,
    /// Full ones, on their way to the device.
    pub full: Depth,
    /// Passes submitted whose results are not back.
    pub in_flight: Depth,
}

/// How deep a queue was, looked at now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Depth {
    sum: u64,
    max: usize,
    looks: u64,
}

impl Depth {
    /// Notes its depth at a moment.
    pub fn look(&mut self, depth: usize) {
        self.sum += depth as u64;
        self.max = self.max.max(depth);
        self.looks += 1;
    }

    fn mean(&self) -> f64 {
        self.sum as f64 / self.looks.max(1) as f64
    }
}

/// The verdict of a run, as in `verdict.json`; shown in plain words by [`Display`](fmt::Display).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Where the time went, in seconds, by name: `disk`, `decode`, `augment`, `upload`, `gpu`, `launch`, and before the
    /// loop `open` and `compile`. Workers' times are divided by their number. Stages overlap, so the sum says nothing.
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
    /// The one flag to change, with its reason, in words.
    pub advice: String,
    /// The same, for programs.
    pub change: Change,
    /// Training steps, from the result of one to that of the next.
    pub steps: Quantiles,
    /// Who was busy and who waited.
    pub stages: Vec<Busy>,
    /// What lay between them.
    pub queues: Vec<Queue>,
    /// Samples that could not be used.
    pub bad_samples: u64,
    /// What came of the change, where it was tried.
    pub verified: Option<Verified>,
}

/// A stage: one or more threads, or the device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Busy {
    /// `disk` (readers), `prepare` (workers), `launch` (the device thread), `gpu` (the device).
    pub name: String,
    /// How many.
    pub threads: usize,
    /// Seconds at work, summed over them.
    pub busy_s: f64,
    /// Seconds of the loop that they were not.
    pub waiting_s: f64,
}

/// A queue between two stages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// `empty` (device to preparation), `full` (preparation to device), `in_flight` (submitted passes).
    pub name: String,
    /// What there is room for.
    pub capacity: usize,
    /// Its mean depth, looked at as each pass was submitted.
    pub depth_mean: f64,
    /// Its greatest depth.
    pub depth_max: usize,
    /// Seconds that whoever takes from it waited for it.
    pub waited_s: f64,
}

/// A change that was tried for some steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// What was changed, as on the command line.
    pub change: String,
    /// Samples a second as the run was set to.
    pub before_per_s: f64,
    /// And with the change.
    pub after_per_s: f64,
    /// Speed-up as predicted.
    pub predicted: Option<f64>,
    /// And as measured.
    pub measured: f64,
    /// Steps that were timed of each.
    pub steps: u64,
}

/// Below this share of the ideal, stages waited for each other and not for the slowest of them.
const OVERLAP_MIN: f64 = 0.8;

impl Verdict {
    /// Judges a run.
    pub fn new(times: &StageTimes) -> Self {
        let bounds = Bounds::new(times);
        let actual_s = times.wall_s;
        let ideal_s = bounds.slowest_s().min(actual_s);
        let efficiency = if actual_s > 0.0 { ideal_s / actual_s } else { 1.0 };
        let bottleneck = match () {
            () if times.compile_s > times.wall_s => "compile",
            () if efficiency < OVERLAP_MIN => "overlap",
            () => bounds.slowest(),
        };
        let case = Case { times, bounds: &bounds, ideal_s };
        let speedup = match bottleneck {
            "compile" => case.speedup_of_start(times.compile_s),
            "overlap" => case.speedup_of_overlap(),
            stage => case.speedup(&bounds.with(stage, 0.0)),
        };
        let change = case.change(bottleneck);
        Self {
            time_s: time_s(times),
            bottleneck: bottleneck.to_string(),
            ideal_s,
            actual_s,
            efficiency,
            speedup_without_bottleneck: speedup,
            advice: change.words(),
            change,
            steps: times.steps,
            stages: stages(times),
            queues: queues(times),
            bad_samples: 0,
            verified: None,
        }
    }
}

fn time_s(times: &StageTimes) -> BTreeMap<String, f64> {
    let workers = times.workers.max(1) as f64;
    [
        ("disk", (times.disk_s / workers).max(times.readers_busy_s / times.readers.max(1) as f64)),
        ("decode", times.decode_s / workers),
        ("augment", times.augment_s / workers),
        ("upload", times.upload_s / workers + times.copy_s),
        ("gpu", times.device_busy_s),
        ("launch", times.launch_s),
        ("open", times.open_s),
        ("compile", times.compile_s),
    ]
    .map(|(name, s)| (name.to_string(), s))
    .into()
}

fn stages(times: &StageTimes) -> Vec<Busy> {
    let busy = |name: &str, threads: usize, busy_s: f64| Busy {
        name: name.into(),
        threads,
        busy_s,
        waiting_s: (threads as f64 * times.wall_s - busy_s).max(0.0),
    };
    let prepare_s = times.disk_s + times.decode_s + times.augment_s + times.upload_s;
    let mut stages = vec![
        busy("prepare", times.workers, prepare_s),
        busy("launch", 1, times.launch_s),
        busy("gpu", 1, times.copy_s + times.device_busy_s),
    ];
    if times.readers > 0 {
        stages.insert(0, busy("disk", times.readers, times.readers_busy_s));
    }
    stages
}

fn queues(times: &StageTimes) -> Vec<Queue> {
    let queue = |name: &str, depth: Depth, waited_s: f64| Queue {
        name: name.into(),
        capacity: times.slots,
        depth_mean: depth.mean(),
        depth_max: depth.max,
        waited_s,
    };
    vec![
        queue("empty", times.queues.empty, times.prepare_wait_s),
        queue("full", times.queues.full, times.starved_s),
        queue("in_flight", times.queues.in_flight, times.device_wait_s),
    ]
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |name| Seconds(self.time_s.get(name).copied().unwrap_or(0.0));
        writeln!(
            f,
            "time, overlapping: disk {} · decode {} · augment {} · upload {}",
            of("disk"),
            of("decode"),
            of("augment"),
            of("upload"),
        )?;
        writeln!(
            f,
            "      launch {} · compute {} · before them: open {}, compile {}",
            of("launch"),
            of("gpu"),
            of("open"),
            of("compile"),
        )?;
        let shares: Vec<String> = self.stages.iter().filter_map(busy_share).collect();
        writeln!(f, "busy: {}", shares.join(" · "))?;
        if self.steps.count > 0 {
            let [p50, p95, p99] =
                [self.steps.p50_s, self.steps.p95_s, self.steps.p99_s].map(Seconds);
            writeln!(f, "step: median {p50} · 95 % within {p95} · 99 % within {p99}")?;
        }
        writeln!(
            f,
            "verdict: {:.2} s, of which the slowest stage alone would take {:.2} s ({:.0} %)",
            self.actual_s,
            self.ideal_s,
            100.0 * self.efficiency,
        )?;
        writeln!(
            f,
            "held up by {}, without it {}",
            stage_name(&self.bottleneck),
            times_faster(self.speedup_without_bottleneck),
        )?;
        let predicted = self.change.speedup.map(|s| format!(", predicted {}", times_faster(s)));
        writeln!(
            f,
            "to go faster: {}{}",
            self.change.on_command_line(),
            predicted.unwrap_or_default()
        )?;
        write!(f, "  {}", self.change.why)
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let predicted = match self.predicted {
            Some(speedup) => format!("predicted {}", times_faster(speedup)),
            None => "nothing predicted".into(),
        };
        writeln!(f, "verified over {} steps each: {}", self.steps, self.change)?;
        write!(
            f,
            "  {:.0} samples/s before, {:.0} with it: {}, {predicted}",
            self.before_per_s,
            self.after_per_s,
            times_faster(self.measured),
        )
    }
}

/// Seconds, with as many digits as there is sense in.
struct Seconds(f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0.0 => write!(f, "0 s"),
            s if s < 0.001 => write!(f, "{:.0} µs", 1e6 * s),
            s if s < 0.1 => write!(f, "{:.1} ms", 1e3 * s),
            s => write!(f, "{s:.2} s"),
        }
    }
}

/// `prepare 93 % of 2`.
fn busy_share(stage: &Busy) -> Option<String> {
    let all_s = stage.busy_s + stage.waiting_s;
    let threads = if stage.threads > 1 { format!(" of {}", stage.threads) } else { String::new() };
    let name = match stage.name.as_str() {
        "disk" => "readers",
        "prepare" => "workers",
        other => stage_name(other),
    };
    (all_s > 0.0).then(|| format!("{name} {:.0} %{threads}", 100.0 * stage.busy_s / all_s))
}

/// A stage or bottleneck, as people call it.
pub(super) fn stage_name(bottleneck: &str) -> &str {
    match bottleneck {
        "gpu" => "compute",
        "overlap" => "stages waiting for each other",
        "cores" => "cores that all stages share",
        other => other,
    }
}

/// A prediction beyond this only says that nothing else takes any time.
const SPEEDUP_SHOWN_MAX: f64 = 20.0;

pub(super) fn times_faster(speedup: f64) -> String {
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
            open_s: 0.3,
            decode_s: 1.0,
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
        // What is lost between stages, 0.2 s, is still lost.
        expect(&gpu_run(), "gpu", 10.0, 10.2 / 1.2, "--device");
        let keys: Vec<String> = Verdict::new(&gpu_run()).time_s.into_keys().collect();
        assert_eq!(
            keys,
            ["augment", "compile", "decode", "disk", "gpu", "launch", "open", "upload"]
        );
    }

    #[test]
    fn bound_by_preparation() {
        let times = StageTimes {
            decode_s: 30.0,
            prepare_busy_s: 9.9,
            device_busy_s: 3.0,
            workers: 3,
            ..gpu_run()
        };
        // Without decoding, 3 of 33 thread seconds of preparation are left; the device is slower then.
        expect(&times, "decode", 9.9, 10.2 / 3.3, "--workers 4");
        let all_cores = StageTimes { workers: 4, augment_s: 31.0, ..times };
        let rest_s = 9.9 * (1.0 - 31.0 / 62.0);
        expect(&all_cores, "augment", 9.9, 10.2 / (rest_s + 0.3), "--transforms");
    }

    #[test]
    fn bound_by_launching() {
        let times = StageTimes { launch_s: 10.1, device_busy_s: 4.0, ..gpu_run() };
        expect(&times, "launch", 10.1, 10.2 / 4.1, "--batch-size");
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
            decode_s: 8.0,
            prepare_busy_s: 5.0,
            device_busy_s: 7.0,
            processor_s: 20.0,
            cores: 2,
            workers: 2,
            shared_cores: true,
            ..gpu_run()
        };
        expect(&times, "cores", 10.0, 10.2 / 7.2, "--device: a GPU");
        let apart = StageTimes { shared_cores: false, ..times };
        assert_eq!(Verdict::new(&apart).bottleneck, "overlap");
    }

    #[test]
    fn waiting_for_a_core_is_not_preparing() {
        let times =
            StageTimes { prepare_busy_s: 8.0, processor_s: 40.0, shared_cores: true, ..gpu_run() };
        // Workers worked for 4 s on 4 threads; the other 7 s went by until the twins let go of a core.
        expect(&times, "gpu", 10.0, 10.2 / 1.2, "--device: a GPU");
    }

    #[test]
    fn sleeping_preparation_takes_no_core() {
        // A disk makes preparation wait as long as the twins compute, one after the other.
        let sync = StageTimes {
            wall_s: 20.0,
            decode_s: 20.0,
            prepare_busy_s: 10.0,
            device_busy_s: 10.0,
            processor_s: 20.0,
            cores: 2,
            workers: 2,
            slots: 1,
            shared_cores: true,
            ..gpu_run()
        };
        expect(&sync, "overlap", 10.0, 2.0, "--sync=false");
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
        assert!(text.contains("held up by compute, without it 8.5 times as fast"), "{text}");
        let wide = text.lines().find(|line| line.chars().count() > 80);
        assert_eq!(wide, None, "{text}");
    }
}
