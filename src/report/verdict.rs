//! Where the time of a run went, what bounded it, and the one flag to change.

use serde::Serialize;

/// Measured by the pipeline while it runs; all in seconds, summed over the run. Workers' times are summed
/// over threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StageTimes {
    /// Wall time of the training loop, without opening and compiling.
    pub wall_s: f64,
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
    /// Number of preparing workers.
    pub workers: usize,
    /// Number of slots.
    pub slots: usize,
    /// Passes run.
    pub passes: u64,
    /// Whether preparation and compute share the same cores (twins, software adapters).
    pub shared_cores: bool,
}

/// The verdict of a run, as in `verdict.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Where the time went, in seconds, by name: `disk+decode`, `augment`, `upload`, `gpu`, `launch`, `compile`.
    pub time_s: std::collections::BTreeMap<String, f64>,
    /// The slowest stage.
    pub bottleneck: String,
    /// What the run would take with the slowest stage alone.
    pub ideal_s: f64,
    /// What it took.
    pub actual_s: f64,
    /// `ideal_s / actual_s`.
    pub efficiency: f64,
    /// Predicted speed-up if the bottleneck took no time.
    pub speedup_without_bottleneck: f64,
    /// The one flag to change, with its reason.
    pub advice: String,
}
