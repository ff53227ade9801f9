//! The file that a run of the suite leaves: everything that a public table needs, in one JSON object. `schema_version`
//! changes when the meaning of a field does, `suite_version` when a workload does, or what of it is timed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::stats::Estimate;
use crate::durable::replace_file;
use crate::error::{Error, Result};
use crate::report::words::duration;

/// What files of results say of themselves.
pub const SCHEMA: &str = "inflight-bench";
/// The meaning of the fields.
pub const SCHEMA_VERSION: u32 = 1;

/// The results of one run of the suite on one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Which workloads there are, and with which sizes.
    pub suite_version: u32,
    /// Whether it was the quick one, which has less time and leaves out what takes longest.
    pub quick: bool,
    /// When it began: seconds since 1970.
    pub created_s: u64,
    /// What measured.
    pub program: Program,
    /// What was measured.
    pub device: Device,
    /// Processor, system and memory, by name.
    pub host: BTreeMap<String, String>,
    /// Clocks, temperatures and load before, where the system tells them.
    pub before: BTreeMap<String, f64>,
    /// And after.
    pub after: BTreeMap<String, f64>,
    /// What the device can do at best, as measured: `bytes_per_s`, `f32_flops_per_s`, ...
    pub ceilings: BTreeMap<String, f64>,
    /// What was timed.
    pub workloads: Vec<Workload>,
    /// What was not, and why.
    pub left_out: Vec<LeftOut>,
    /// Rounds, the first one, which warms up, not counted.
    pub rounds: usize,
    /// Seconds that all of it took.
    pub wall_s: f64,
}

/// The program that measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// `release`, or `debug`, whose times mean nothing.
    pub profile: String,
    /// Target and features that change what is measured.
    pub build: String,
    /// Factor by which a test build lengthens all times; 1 in every other.
    pub planted_slowdown: f64,
}

/// The device that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// The adapter's or processor's name.
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `software`, `twins`.
    pub kind: String,
    /// `vulkan`, `metal`, `dx12`, `cpu`.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Limits, by name.
    pub limits: BTreeMap<String, u64>,
    /// Features that are used.
    pub features: Vec<String>,
}

/// A workload that was timed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// `kernels/...`, `train/...`, `pipeline/...`: the same in all results of a version of the suite.
    pub id: String,
    /// Samples a repetition; 0 for kernels.
    pub samples: u64,
    /// Seconds a repetition: the median over rounds, with its 95 % interval.
    #[serde(flatten)]
    pub time_s: Estimate,
    /// Each round's median.
    pub each_s: Vec<f64>,
    /// Share of what the device can do at best, for kernels.
    pub share: Option<f64>,
}

/// A workload that was not timed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Which.
    pub id: String,
    /// Why.
    pub why: String,
}

impl Results {
    /// Reads a file of results.
    ///
    /// # Errors
    /// When it cannot be read, is none, or is of a version that this program does not know.
    pub fn load(path: &Path) -> Result<Self> {
        let wrong = |message: String| Error::config(path.display(), message);
        let text = std::fs::read_to_string(path)
            .map_err(|e| wrong("cannot be read".into()).caused_by(e))?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| {
            wrong("is no JSON, expected results of a benchmark".into()).caused_by(e)
        })?;
        if value["schema"] != SCHEMA {
            let message = format!("found schema {}, expected {SCHEMA}", value["schema"]);
            return Err(wrong(message).hint("a file that `inflight bench --out FILE` has written"));
        }
        if value["schema_version"] != SCHEMA_VERSION {
            let found = &value["schema_version"];
            let message = format!("found version {found} of the schema, expected {SCHEMA_VERSION}");
            return Err(wrong(message).hint("the program that has written it, or a newer one"));
        }
        let results: Self = serde_json::from_value(value)
            .map_err(|e| wrong("holds other fields than results have".into()).caused_by(e))?;
        results.check().map_err(wrong)?;
        Ok(results)
    }

    /// Whether the numbers are such as the suite writes.
    fn check(&self) -> Result<(), String> {
        for workload in &self.workloads {
            let sound = |s: &f64| s.is_finite() && *s > 0.0;
            if workload.each_s.is_empty() || !workload.each_s.iter().all(sound) {
                return Err(format!("{}: found times that are none", workload.id));
            }
        }
        Ok(())
    }

    /// Writes them as the file's name asks: `.json`, `.csv` or `.md`.
    ///
    /// # Errors
    /// When the name ends in something else, or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = match path.extension().and_then(|e| e.to_str()) {
            Some("json") => {
                let json = serde_json::to_string_pretty(self).map_err(|e| {
                    Error::config(path.display(), "cannot be written as JSON").caused_by(e)
                })?;
                json + "\n"
            }
            Some("csv") => self.csv(),
            Some("md") => self.markdown(),
            _ => {
                let message = format!("found {}, expected .json, .csv or .md", path.display());
                return Err(Error::config("--out", message));
            }
        };
        replace_file(path, text.as_bytes())
    }

    /// A line a workload: `device,backend,id,samples,median_s,low_s,high_s,rounds,per_s,share`.
    pub fn csv(&self) -> String {
        let mut text =
            String::from("device,backend,id,samples,median_s,low_s,high_s,rounds,per_s,share\n");
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        for w in &self.workloads {
            let _ = writeln!(
                text,
                "{},{},{},{},{:e},{:e},{:e},{},{},{}",
                quoted(&self.device.name),
                self.device.backend,
                w.id,
                w.samples,
                w.time_s.median,
                w.time_s.low,
                w.time_s.high,
                w.each_s.len(),
                w.per_s().map_or(String::new(), |x| format!("{x:.3}")),
                w.share.map_or(String::new(), |x| format!("{x:.4}")),
            );
        }
        text
    }

    /// A table for people.
    pub fn markdown(&self) -> String {
        let d = &self.device;
        let mut text = format!(
            "# {} ({}, {})\n\nSuite {} · inflight {} · {} rounds · {:.0} s\n\n",
            d.name,
            d.kind,
            d.backend,
            self.suite_version,
            self.program.version,
            self.rounds,
            self.wall_s
        );
        text += "| workload | median | 95 % interval | samples/s | of the best |\n|---|---|---|---|---|\n";
        for w in &self.workloads {
            let _ = writeln!(
                text,
                "| `{}` | {} | {} – {} | {} | {} |",
                w.id,
                duration(w.time_s.median),
                duration(w.time_s.low),
                duration(w.time_s.high),
                w.per_s().map_or("–".into(), |x| format!("{x:.0}")),
                w.share.map_or("–".into(), |x| format!("{:.0} %", 100.0 * x)),
            );
        }
        for left in &self.left_out {
            let _ = writeln!(text, "\nLeft out: `{}`: {}.", left.id, left.why);
        }
        text
    }

    /// What keeps these results from a public table.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.program.profile != "release" {
            faults.push(format!("measured by a {} build, expected release", self.program.profile));
        }
        if self.program.planted_slowdown != 1.0 {
            faults.push("measured by a test build that lengthens times".into());
        }
        if self.quick {
            faults.push("of the quick suite, expected the whole one".into());
        }
        let missing = |part: &str| !self.workloads.iter().any(|w| w.id.starts_with(part));
        for part in ["kernels/", "train/", "pipeline/"].into_iter().filter(|part| missing(part)) {
            faults.push(format!("nothing of {part}, expected all parts"));
        }
        let wide = self.workloads.iter().filter(|w| w.time_s.spread() > WIDE).count();
        if 4 * wide > self.workloads.len() {
            faults.push(format!(
                "{wide} of {} intervals are wider than {:.0} % to either side: the machine had other work",
                self.workloads.len(),
                100.0 * WIDE
            ));
        }
        faults
    }
}

/// Half-width of an interval above which a median is not sure enough for a table.
const WIDE: f64 = 0.05;

impl Workload {
    /// Samples a second, where it has samples.
    pub fn per_s(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.samples as f64 / self.time_s.median)
    }
}
