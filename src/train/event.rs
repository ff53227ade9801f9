//! What a run tells while it goes on: events, the same for callbacks, streams, queues and `--json`.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::units::{TextMeasures, Utilisation};
use crate::config::RunConfig;
use crate::executor::DeviceInfo;
use crate::pipeline::Find;
use crate::report::pulse::Pulse;
use crate::report::verdict::Verdict;
use crate::source::cache::CacheCounts;
use crate::tuner::SLOTS_FIRST;

/// One event of a run, in the order in which things happened on the device.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// An optimizer step was applied (or skipped, see `skipped`).
    Step(StepReport),
    /// An epoch ended, and was validated where there is a validation set.
    Epoch(EpochReport),
    /// A checkpoint is on disk.
    Checkpoint(CheckpointReport),
    /// What the stages did since the pulse before; several times a second.
    Pulse(Box<Pulse>),
    /// The run is over.
    Done(Box<Summary>),
}

/// One optimizer step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Steps applied up to and including this one.
    pub step: u64,
    /// Epoch it belongs to, from 0.
    pub epoch: u64,
    /// Mean loss over the samples of the step.
    #[serde(deserialize_with = "super::book::null_is_nan")]
    pub loss: f64,
    /// Share of correct predictions, for classifiers.
    pub accuracy: Option<f64>,
    /// Learning rate used.
    pub lr: f64,
    /// Samples in the step.
    pub samples: u64,
    /// Global norm of the gradients before clipping.
    #[serde(deserialize_with = "super::book::null_is_nan")]
    pub grad_norm: f64,
    /// Whether the update was skipped because a gradient was not finite.
    pub skipped: bool,
    /// Seconds since the run began when the report reached the host.
    pub elapsed_s: f64,
}

/// One epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Steps applied so far.
    pub step: u64,
    /// Mean training loss over the epoch's samples.
    #[serde(deserialize_with = "super::book::null_is_nan")]
    pub loss: f64,
    /// Training accuracy over the epoch, for classifiers.
    pub accuracy: Option<f64>,
    /// Validation loss, where there is a validation set.
    pub val_loss: Option<f64>,
    /// Validation accuracy, for classifiers.
    pub val_accuracy: Option<f64>,
    /// Bad training samples that others stood in for.
    #[serde(default)]
    pub replaced: u64,
    /// Bad samples that were left out of the validation.
    #[serde(default)]
    pub left_out: u64,
    /// Of text, the same in the field's units: the loss of the validation, or without one that of training; tokens of training.
    #[serde(flatten)]
    pub text: TextMeasures,
    /// Of text, how much of the device training made use of.
    #[serde(flatten)]
    pub utilisation: Utilisation,
    /// Training samples a second of this epoch, validation not counted; 0 where a run went on right at its end.
    #[serde(deserialize_with = "super::book::null_is_nan")]
    pub samples_per_s: f64,
    /// Seconds since the run began.
    pub elapsed_s: f64,
}

/// One checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CheckpointReport {
    /// Steps applied when it was taken.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
    /// Size on disk, in bytes.
    pub bytes: u64,
}

/// Where the time to the first step went, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FirstStep {
    /// Opening the data set.
    pub open_data_s: f64,
    /// Building the graph and the plan.
    pub plan_s: f64,
    /// Opening the adapter.
    pub adapter_s: f64,
    /// Choosing among variants of kernels.
    pub tune_s: f64,
    /// Compiling shaders and creating pipelines.
    pub compile_s: f64,
    /// From then until the first batch was filled.
    pub first_batch_s: f64,
    /// From then until the first loss was on the host.
    pub first_result_s: f64,
    /// All of it, from the start of the run.
    pub total_s: f64,
}

/// What prepared the batches of a run, as it was at the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Input {
    /// Threads that decode, transform and write into slots.
    pub workers: usize,
    /// Slots in play.
    pub slots: usize,
    /// Slots there are.
    pub ring: usize,
    /// Threads that read ahead, where reads wait for a disk or a network.
    pub readers: Option<usize>,
    /// Which of these were not given, and found while the run went on.
    pub found: Vec<&'static str>,
    /// Reads whose sample had been read ahead.
    pub ahead_hits: Option<u64>,
    /// Reads whose sample was in the cache, and those whose was not.
    pub cache: Option<CacheCounts>,
    /// Bytes that slots and samples read ahead may take together.
    pub memory_budget: usize,
}

impl Input {
    /// What a run begins with that has a ring of `ring` slots, and whose reads wait for a disk or a network if `waits`.
    pub fn planned(config: &RunConfig, ring: usize, waits: bool) -> Self {
        let Find { workers, slots } = config.find();
        let readers = waits && config.readers.is_none();
        let free = [("workers", workers), ("slots", slots), ("readers", readers)];
        Self {
            workers: config.worker_count(),
            slots: if slots { ring.min(SLOTS_FIRST) } else { ring },
            ring,
            readers: config.readers,
            found: free.into_iter().filter_map(|(name, free)| free.then_some(name)).collect(),
            memory_budget: config.memory_budget,
            ..Self::default()
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = |name| if self.found.contains(&name) { " (found)" } else { "" };
        write!(f, "workers {}{}", self.workers, found("workers"))?;
        write!(f, " · slots {} of {}{}", self.slots, self.ring, found("slots"))?;
        if let Some(readers) = self.readers {
            write!(f, " · readers {readers}{}", found("readers"))?;
        }
        if let Some(hits) = self.ahead_hits {
            write!(f, ", which were ahead of {hits} reads")?;
        }
        if let Some(CacheCounts { hits, misses }) = self.cache {
            write!(f, " · cache {hits} hits, {misses} misses")?;
        }
        Ok(())
    }
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Steps applied, by this process and those it resumed from.
    pub steps: u64,
    /// Samples this process trained on.
    pub samples: u64,
    /// Seconds this process trained, from the first submit to the last result, validation not counted.
    pub train_s: f64,
    /// `samples / train_s`.
    pub samples_per_s: f64,
    /// Training loss of the last epoch.
    pub loss: Option<f64>,
    /// Validation loss after the last epoch.
    pub val_loss: Option<f64>,
    /// Validation accuracy after the last epoch.
    pub val_accuracy: Option<f64>,
    /// Of text, the same in the field's units, the loss as in the last epoch's report.
    #[serde(flatten)]
    pub text: TextMeasures,
    /// Of text, how much of the device training made use of.
    #[serde(flatten)]
    pub utilisation: Utilisation,
    /// Updates skipped because a gradient was not finite.
    pub skipped: u64,
    /// Bad samples met, by this process and, where they are quarantined, those it resumed from.
    pub bad_samples: u64,
    /// How often this process left one out or had another one stand in for it.
    pub replaced_samples: u64,
    /// The ledger of bad samples, where they are quarantined.
    pub quarantine: Option<PathBuf>,
    /// The loss scale at the end, in mixed precision.
    pub loss_scale: Option<f64>,
    /// What it ran on.
    pub device: DeviceInfo,
    /// The run folder, where there is one.
    pub run_dir: Option<PathBuf>,
    /// Seconds from the start to the first result on the host.
    pub time_to_first_step_s: f64,
    /// The same, itemised.
    pub first_step: FirstStep,
    /// Bytes of the ring of slots.
    pub slot_bytes: u64,
    /// What prepared its batches.
    pub input: Input,
    /// Highest resident memory of the process, in bytes, where the system tells it.
    pub peak_memory_bytes: Option<u64>,
    /// SHA-256 over all parameters.
    pub parameter_hash: String,
    /// Whether it was stopped before its last step.
    pub stopped: bool,
    /// Where the time went.
    pub verdict: Verdict,
}
