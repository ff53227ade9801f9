//! What the folder of a run says, as far as it can be read: a run may be under way, cut off, or damaged.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::RunConfig;
use crate::durable;
use crate::error::{Error, Result};
use crate::quarantine::LEDGER_FILE;
use crate::report::answers::{ANSWERS, Answers};
use crate::report::curve::Curve;
use crate::report::folder::{EPOCHS, METRICS, SUMMARY, TIMELINE, VERDICT};
use crate::report::gallery::{self, MISTAKES_SHEET, SAMPLES, SAMPLES_SHEET, Samples};
use crate::report::histogram::Quantiles;
use crate::report::pulse::Pulse;
use crate::report::verdict::{Busy, Queue, Verified};
use crate::train::event::{EpochReport, StepReport};

/// Bytes of a file that is read as a whole.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a line of JSON; a step takes some two hundred.
const LINE_BYTES_MAX: u64 = 1 << 16;
/// Lines of the timeline that are read: beyond what any run writes.
const PULSES_MAX: usize = 100_000;

/// The configuration of a run, in its folder.
const CONFIG: &str = "config.toml";
/// What its inputs were.
const INPUTS: &str = "inputs.json";

/// Something from the folder, or why it is not there.
pub type Found<T> = Result<T, Lack>;

/// Why something is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Its file.
    pub file: &'static str,
    /// What is wrong with it.
    pub why: String,
    /// Whether there is a file.
    pub damaged: bool,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.why)
    }
}

/// All that the folder says.
#[derive(Clone, Debug)]
pub struct Record {
    /// The folder's name.
    pub name: String,
    /// The configuration: as it is written, and understood.
    pub config: Found<(String, Box<RunConfig>)>,
    /// Names of the classes and of the data.
    pub inputs: Found<Inputs>,
    /// The curves of all steps.
    pub steps: Found<Steps>,
    /// The epochs, in order.
    pub epochs: Found<Vec<EpochReport>>,
    /// The timeline; `elapsed_s` goes on where a run was resumed.
    pub timeline: Found<Vec<Pulse>>,
    /// The end of the run.
    pub summary: Found<Summary>,
    /// Its verdict.
    pub verdict: Found<Verdict>,
    /// What a classifier answered.
    pub answers: Found<Answers>,
    /// Pictures of its worst mistakes, each a PNG.
    pub mistakes: Found<Vec<Vec<u8>>>,
    /// The first samples.
    pub samples: Found<Samples>,
    /// Their pictures, each a PNG.
    pub pictures: Found<Vec<Vec<u8>>>,
    /// Bad samples on record.
    pub quarantined: u64,
    /// Lines that could not be read, in words.
    pub skipped: Vec<String>,
}

/// What a page needs of `inputs.json`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Inputs {
    /// Names.
    pub info: Info,
}

/// What a page needs of a source's info.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Name of the data.
    pub name: String,
    /// Names of the classes, if known.
    pub class_names: Vec<String>,
}

/// What a page needs of a verdict; other versions may have other fields.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// Seconds by stage.
    pub time_s: BTreeMap<String, f64>,
    /// What held the run up.
    pub bottleneck: Option<String>,
    /// What its slowest stage alone would take.
    pub ideal_s: Option<f64>,
    /// What it took.
    pub actual_s: Option<f64>,
    /// Their ratio.
    pub efficiency: Option<f64>,
    /// How much faster without the bottleneck.
    pub speedup_without_bottleneck: Option<f64>,
    /// What to change.
    pub advice: Option<String>,
    /// Training steps, from result to result.
    pub steps: Option<Quantiles>,
    /// Who was busy and who waited.
    pub stages: Vec<Busy>,
    /// What lay between them.
    pub queues: Vec<Queue>,
    /// What came of the change, where it was tried.
    pub verified: Option<Verified>,
}

/// What a page needs of a summary.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Steps applied.
    pub steps: u64,
    /// Samples trained on.
    pub samples: u64,
    /// Seconds of training.
    pub train_s: Option<f64>,
    /// Samples a second.
    pub samples_per_s: Option<f64>,
    /// What it ran on.
    pub device: Device,
    /// Itemised start.
    pub first_step: BTreeMap<String, f64>,
    /// Peak of resident memory.
    pub peak_memory_bytes: Option<u64>,
    /// Updates left out.
    pub skipped: u64,
    /// Bad samples.
    pub bad_samples: u64,
    /// SHA-256 over the parameters.
    pub parameter_hash: Option<String>,
    /// Whether it was stopped.
    pub stopped: bool,
}

/// What a page needs of a device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Device {
    /// See [`DeviceInfo::name`](crate::executor::DeviceInfo::name).
    pub name: String,
    /// See [`DeviceInfo::backend`](crate::executor::DeviceInfo::backend).
    pub backend: String,
    /// See [`DeviceInfo::kind`](crate::executor::DeviceInfo::kind).
    pub kind: String,
    /// See [`DeviceInfo::driver`](crate::executor::DeviceInfo::driver).
    pub driver: String,
    /// See [`DeviceInfo::allocated_bytes`](crate::executor::DeviceInfo::allocated_bytes).
    pub allocated_bytes: u64,
}

/// Curves over steps, and over seconds.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// Loss.
    pub loss: Curve,
    /// Accuracy.
    pub accuracy: Curve,
    /// Learning rate.
    pub lr: Curve,
    /// Norm of the gradients.
    pub grad_norm: Curve,
    /// Samples a second over seconds, from the times at which steps came back.
    pub samples_per_s: Curve,
    /// The last step.
    pub last: u64,
    /// Seconds at the last step.
    pub elapsed_s: f64,
    /// Steps whose update was left out.
    pub left_out: u64,
    /// Steps whose loss is not finite.
    pub not_finite: u64,
}

impl Record {
    /// Reads the folder of a run.
    ///
    /// # Errors
    /// When it is no folder, or has nothing of a run in it. Whatever else is wrong with it is told in the record.
    pub fn read(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            let message = match dir.exists() {
                true => "found a file, expected the folder of a run",
                false => "found no such folder, expected that of a run",
            };
            return Err(Error::config(dir.display(), message).hint("a folder under runs/"));
        }
        let known = [CONFIG, METRICS, EPOCHS, TIMELINE, SUMMARY, VERDICT];
        if !known.iter().any(|name| dir.join(name).exists()) {
            let message =
                format!("found none of {}, expected the folder of a run", known.join(", "));
            return Err(Error::config(dir.display(), message).hint("a folder under runs/"));
        }
        let mut skipped = Vec::new();
        let answers = json(dir, ANSWERS).and_then(|answers: Answers| match answers.is_sound() {
            true => Ok(answers),
            false => Err(lack(ANSWERS, "its numbers do not fit together", true)),
        });
        let samples: Found<Samples> = json(dir, SAMPLES);
        let mistakes = answers.as_ref().map_or_else(
            |lack| Err(lack.clone()),
            |answers| tiles(dir, MISTAKES_SHEET, answers.worst.len()),
        );
        let pictures = samples.as_ref().map_or_else(
            |lack| Err(lack.clone()),
            |samples| tiles(dir, SAMPLES_SHEET, samples.samples.len()),
        );
        let steps = steps(dir, &mut skipped);
        let (summary, verdict) = end(dir, &steps);
        let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.into());
        let name = absolute.file_name().map_or("run".into(), |name| name.to_string_lossy());
        Ok(Self {
            name: name.into_owned(),
            config: config(dir),
            inputs: json(dir, INPUTS),
            steps,
            epochs: epochs(dir, &mut skipped),
            timeline: timeline(dir, &mut skipped),
            summary,
            verdict,
            answers,
            mistakes,
            samples,
            pictures,
            quarantined: quarantined(dir),
            skipped,
        })
    }

    /// The name of a class.
    pub fn class_name(&self, class: u32) -> String {
        let names = self.inputs.as_ref().ok().map(|inputs| &inputs.info.class_names);
        let name = names.and_then(|names| names.get(class as usize));
        name.cloned().unwrap_or_else(|| class.to_string())
    }

    /// What is not there, in words, without repeating what follows from something else.
    pub fn lacks(&self) -> Vec<String> {
        let classifies = self.steps.as_ref().is_ok_and(|steps| !steps.accuracy.is_empty());
        let parts: [Option<&Lack>; 9] = [
            self.config.as_ref().err(),
            self.inputs.as_ref().err(),
            self.steps.as_ref().err(),
            self.epochs.as_ref().err(),
            self.timeline.as_ref().err(),
            self.summary.as_ref().err(),
            self.verdict.as_ref().err(),
            // Only classifiers answer.
            self.answers.as_ref().err().filter(|lack| lack.damaged || classifies),
            self.samples.as_ref().err(),
        ];
        let sheets = [self.mistakes.as_ref().err(), self.pictures.as_ref().err()];
        // A run without pictures has no sheets, which is no lack.
        let sheets = sheets.into_iter().flatten().filter(|lack| lack.damaged);
        let mut all: Vec<String> =
            parts.into_iter().flatten().chain(sheets).map(ToString::to_string).collect();
        all.dedup();
        all.extend(self.skipped.iter().cloned());
        all
    }
}

fn lack(file: &'static str, why: impl fmt::Display, damaged: bool) -> Lack {
    Lack { file, why: why.to_string(), damaged }
}

/// The contents of a small file.
fn contents(dir: &Path, file: &'static str) -> Found<Vec<u8>> {
    let path = dir.join(file);
    if !path.exists() {
        return Err(lack(file, "is not there", false));
    }
    // The page names files of its run without their folder, so that a folder that moved gives the same page.
    durable::read_file(&path, FILE_BYTES_MAX).map_err(|error| {
        let text = error.to_string();
        let why = text.split(": ").skip(2).collect::<Vec<_>>().join(": ");
        lack(file, why, true)
    })
}

fn json<T: DeserializeOwned>(dir: &Path, file: &'static str) -> Found<T> {
    let bytes = contents(dir, file)?;
    serde_json::from_slice(&bytes).map_err(|e| lack(file, format!("is damaged: {e}"), true))
}

fn config(dir: &Path) -> Found<(String, Box<RunConfig>)> {
    let bytes = contents(dir, CONFIG)?;
    let text = String::from_utf8(bytes).map_err(|_| lack(CONFIG, "is damaged: not UTF-8", true))?;
    let config = RunConfig::parse(&text, CONFIG).map_err(|e| lack(CONFIG, e, true))?;
    Ok((text, Box::new(config)))
}

fn tiles(dir: &Path, file: &'static str, count: usize) -> Found<Vec<Vec<u8>>> {
    if count > gallery::SAMPLES_MAX.max(crate::report::answers::WORST_MAX) {
        return Err(lack(file, format!("{count} pictures are more than are kept"), true));
    }
    let bytes = contents(dir, file)?;
    gallery::tiles(Path::new(file), &bytes, count)
        .map_err(|_| lack(file, format!("is damaged, expected {count} pictures"), true))
}

/// Reads lines of JSON one by one. The last one may be half written; others that cannot be read are counted.
fn lines<T: DeserializeOwned>(
    dir: &Path,
    file: &'static str,
    skipped: &mut Vec<String>,
    mut each: impl FnMut(T),
) -> Found<()> {
    let path = dir.join(file);
    if !path.is_file() {
        let there = path.exists();
        let why = if there { "is not a regular file" } else { "is not there" };
        return Err(lack(file, why, there));
    }
    let cannot = |e| lack(file, format!("cannot be read: {e}"), true);
    let mut reader = BufReader::new(File::open(&path).map_err(cannot)?);
    let (mut line, mut number, mut first_bad, mut bad) = (Vec::new(), 0u64, 0, 0u64);
    loop {
        line.clear();
        let read =
            (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(cannot)?;
        if read == 0 {
            break;
        }
        number += 1;
        let whole = line.last() == Some(&b'\n');
        if !whole && read as u64 == LINE_BYTES_MAX {
            reader.skip_until(b'\n').map_err(cannot)?;
        } else if !whole {
            // Being written, or torn by a crash.
            break;
        } else if let Ok(value) = serde_json::from_slice(&line) {
            each(value);
            continue;
        }
        if bad == 0 {
            first_bad = number;
        }
        bad += 1;
    }
    if bad > 0 {
        skipped.push(format!(
            "{file}: {bad} of {number} lines cannot be read, the first is line {first_bad}"
        ));
    }
    Ok(())
}

/// Summary and verdict, unless they are the end of an earlier part of the run: it has gone on, or back, since.
fn end(dir: &Path, steps: &Found<Steps>) -> (Found<Summary>, Found<Verdict>) {
    let (summary, verdict): (Found<Summary>, _) = (json(dir, SUMMARY), json(dir, VERDICT));
    match (steps, &summary) {
        (Ok(steps), Ok(end)) if end.steps != steps.last => {
            let why = format!("is of step {}, the last on record is {}", end.steps, steps.last);
            let stale = |file| lack(file, &why, true);
            (Err(stale(SUMMARY)), verdict.and_then(|_| Err(stale(VERDICT))))
        }
        _ => (summary, verdict),
    }
}

fn steps(dir: &Path, skipped: &mut Vec<String>) -> Found<Steps> {
    let mut steps = Steps::default();
    let mut clock = Clock::default();
    lines(dir, METRICS, skipped, |report: StepReport| steps.add(&report, &mut clock))?;
    match steps.last {
        0 => Err(lack(METRICS, "has no step", false)),
        _ => Ok(steps),
    }
}

/// Time over a run that was resumed: every process counts from 0.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    before_s: f64,
    last_s: f64,
}

impl Clock {
    /// Seconds since the very beginning.
    fn total_s(&mut self, elapsed_s: f64) -> f64 {
        if elapsed_s < self.last_s {
            self.before_s += self.last_s;
        }
        self.last_s = elapsed_s;
        self.before_s + elapsed_s
    }
}

impl Steps {
    fn add(&mut self, report: &StepReport, clock: &mut Clock) {
        let x = report.step as f64;
        let before_s = self.elapsed_s;
        self.loss.add(x, report.loss);
        if let Some(accuracy) = report.accuracy {
            self.accuracy.add(x, accuracy);
        }
        self.lr.add(x, report.lr);
        self.grad_norm.add(x, report.grad_norm);
        self.elapsed_s = clock.total_s(report.elapsed_s);
        let passed_s = self.elapsed_s - before_s;
        if self.last > 0 && passed_s > 0.0 {
            self.samples_per_s.add(self.elapsed_s, report.samples as f64 / passed_s);
        }
        self.last = report.step;
        self.left_out += u64::from(report.skipped);
        self.not_finite += u64::from(!report.loss.is_finite());
    }
}

fn epochs(dir: &Path, skipped: &mut Vec<String>) -> Found<Vec<EpochReport>> {
    let mut epochs = BTreeMap::new();
    // Of a resumed run, an epoch may be there twice.
    lines(dir, EPOCHS, skipped, |report: EpochReport| {
        if epochs.len() < PULSES_MAX {
            epochs.insert(report.epoch, report);
        }
    })?;
    match epochs.is_empty() {
        true => Err(lack(EPOCHS, "has no epoch", false)),
        false => Ok(epochs.into_values().collect()),
    }
}

fn timeline(dir: &Path, skipped: &mut Vec<String>) -> Found<Vec<Pulse>> {
    let mut pulses = Vec::new();
    let mut clock = Clock::default();
    lines(dir, TIMELINE, skipped, |mut pulse: Pulse| {
        if pulses.len() < PULSES_MAX && pulse.elapsed_s.is_finite() && pulse.over_s > 0.0 {
            pulse.elapsed_s = clock.total_s(pulse.elapsed_s);
            pulses.push(pulse);
        }
    })?;
    match pulses.is_empty() {
        true => Err(lack(TIMELINE, "has no pulse", false)),
        false => Ok(pulses),
    }
}

fn quarantined(dir: &Path) -> u64 {
    let mut count = 0;
    let any = |_: serde::de::IgnoredAny| count += 1;
    // Without the file there are none.
    let _ = lines(dir, LEDGER_FILE, &mut Vec::new(), any);
    count
}
