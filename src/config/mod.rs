//! Everything a run is configured by: a plain struct, read from TOML or made by flags, validated once.

mod names;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::replace_file;
use crate::error::{Error, Result};
use crate::executor::Tune;
use crate::graph::precision::Precision;
use crate::nn::mixing::Mixing;
use crate::nn::models::ModelConfig;
use crate::nn::optimizers::OptimizerConfig;
use crate::nn::schedules::Schedule;
use crate::pipeline::Find;
use crate::sampler::{Sampler, SamplingConfig};
use crate::source::cache::CacheKind;
use crate::source::fetch::default_cache_dir;
use crate::source::supply::Supply;
use crate::source::tokens;
use crate::source::{DataConfig, ENDLESS, Source};
use crate::train::book::SKIPPED_IN_A_ROW_MAX;
use crate::train::checkpoint::{Cadence, KEEP_MIN, Metric};
use crate::train::recovery::OnNan;
use crate::transform::{Augment, TransformConfig};
use crate::tuner::SLOTS_FIRST;
use names::{name_or_table, names_or_tables, some_name_or_table};

/// Epochs of a run that says neither epochs nor steps.
pub const DEFAULT_EPOCHS: u64 = 5;

/// Base learning rate of a run that does not say one: with the schedule that then goes with it, what five
/// epochs of `cnn` on Fashion-MNIST end best with (measured at 0.001 to 0.01; 0.003 to 0.01 differ little).
pub const DEFAULT_LR: f64 = 0.004;

/// Samples of a batch at most: above it a batch of bytes alone would fill the memory of most devices.
const BATCH_SIZE_MAX: usize = 1 << 20;

/// Preparing threads at most: far above any machine's cores, far below what a system starts.
const WORKERS_MAX: usize = 1024;

/// Folder of decoded samples, among the fetched data sets.
const DECODED: &str = "decoded";

/// Slots at most where their number is found.
const SLOTS_FOUND_MAX: usize = 6;

/// Slots of the ring at most: beyond some dozens a ring only takes memory.
const SLOTS_MAX: usize = 1024;

/// The configuration of a run: a TOML file with these keys, each of which a flag overrides.
///
/// ```
/// use inflight::config::RunConfig;
///
/// let config = RunConfig::parse("model = 'mlp'\noptimizer = 'sgd'\nlr = 0.1", "run.toml")?;
/// config.validate()?;
/// assert_eq!(config.batch_size, 128);
/// # Ok::<(), inflight::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Name or path of the data set; the library opens its data itself and leaves it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Passes over the training samples; [`DEFAULT_EPOCHS`] if `steps` is not given either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Optimizer steps, instead of `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Samples a batch.
    pub batch_size: usize,
    /// Base learning rate; [`DEFAULT_LR`] if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Steps of a linear rise of the learning rate before the schedule.
    pub warmup_steps: u64,
    /// Share of the target spread evenly over all classes.
    pub label_smoothing: f64,
    /// α of mixup: training samples are averaged in pairs, with a share from Beta(α, α).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixup: Option<f64>,
    /// α of cutmix: a box of one training image is pasted into another; with `mixup` as well, each batch gets one
    /// of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cutmix: Option<f64>,
    /// Largest global norm of the gradients; longer ones are shortened to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f32>,
    /// Decay of a moving average of the weights, which is what is then evaluated and saved as the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Batches whose gradients are averaged into one step.
    pub accumulate: usize,
    /// The seed of everything random: initial weights, order, transforms, dropout.
    pub seed: u64,
    /// `auto`, `cpu`, `gpu`, `gpu:K`, or a part of an adapter's name; see [`device::open`](crate::device::open).
    pub device: String,
    /// How much to tune on an adapter before training; see [`Tune`].
    pub tune: Tune,
    /// Preparing threads; 0 means one a core, and fewer where more samples come of it.
    pub workers: usize,
    /// Slots of the ring: batches that are prepared, on their way, or computed at the same time. Without it three, and
    /// up to six where more samples come of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<usize>,
    /// The single-lane road: one slot, each stage waits for the one before. For comparison and debugging.
    pub sync: bool,
    /// Whether every epoch has an order of its own.
    pub shuffle: bool,
    /// Whether the last batch of an epoch is left out if it is not full.
    pub drop_last: bool,
    /// How activations and their gradients are stored: `f32`, or `f16` for mixed precision with a scaled loss.
    pub precision: String,
    /// Whether forward activations are made again for the gradients instead of kept, for larger models or batches
    /// in the same memory, at the price of up to a third more arithmetic.
    pub recompute: bool,
    /// Weights to start from: a safetensors file with PyTorch's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Folder of the run; without it one under `runs/`. Not saved with a run, so that repeating the run
    /// does not write over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// How often a run saves: a number of steps, a time (`"30s"`), or `"epoch"`. The end of a run always saves.
    pub checkpoint_every: Cadence,
    /// Newest checkpoints that stay, at least two.
    pub keep: usize,
    /// By what the best checkpoint is told, which stays besides: `val_loss`, `val_accuracy`, or `off`. It needs something
    /// to validate with.
    pub keep_best: Metric,
    /// What is done about steps whose gradients are not finite: `skip`, `stop`, or `rollback`; see [`OnNan`].
    pub on_nan: OnNan,
    /// Such steps in a row after which a run has diverged.
    pub nan_limit: u32,
    /// Whether the test split is evaluated after every epoch.
    pub eval: bool,
    /// Most bytes that the ring of slots may take.
    pub max_slot_bytes: usize,
    /// Where samples are kept once they are read and decoded, for the epochs after: `off`, `ram`, or `disk` for later
    /// runs too. Data that lie in memory as they go to the device are never kept twice.
    pub cache: CacheKind,
    /// Most bytes that they may take there; [`CACHE_BYTES`](crate::source::cache::CACHE_BYTES) if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
    /// Threads that read from a disk or a network ahead of the workers. Without it their number is found while the
    /// run goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readers: Option<usize>,
    /// Batches that they read ahead. Without it at least four, and at least two samples a reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<usize>,
    /// Most bytes that the ring and what is read ahead take together.
    pub memory_budget: usize,
    /// What is done to training images, in order: names, or tables with `type` and settings.
    #[serde(deserialize_with = "names_or_tables", skip_serializing_if = "Vec::is_empty")]
    pub transforms: Vec<TransformConfig>,
    /// Where the transforms run that move or cover pixels and come last; see [`Augment`].
    pub augment: Augment,
    /// What is done to images held out, in order, in validation and in later evaluations of the run. What then has
    /// another size than the model expects is fitted to it, as it is without any.
    #[serde(deserialize_with = "names_or_tables", skip_serializing_if = "Vec::is_empty")]
    pub eval_transforms: Vec<TransformConfig>,
    /// The model: a name, or a list of layers.
    pub model: ModelConfig,
    /// The optimizer: a name, or a table with `type` and its settings.
    #[serde(deserialize_with = "name_or_table")]
    pub optimizer: OptimizerConfig,
    /// How the learning rate changes: a name, or a table with `type` and its settings. If not given, a rate
    /// that is given stays constant, and the default one goes up and down in one cycle.
    #[serde(deserialize_with = "some_name_or_table", skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// How the data set is read, where its files leave a choice.
    pub data: DataConfig,
    /// Which samples are trained on and validated with, and in which order.
    pub sampling: SamplingConfig,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            dataset: None,
            epochs: None,
            steps: None,
            batch_size: 128,
            lr: None,
            warmup_steps: 0,
            label_smoothing: 0.0,
            mixup: None,
            cutmix: None,
            clip_norm: None,
            ema: None,
            accumulate: 1,
            seed: 0,
            device: "auto".into(),
            tune: Tune::Fast,
            workers: 0,
            slots: None,
            sync: false,
            shuffle: true,
            drop_last: false,
            precision: "f32".into(),
            recompute: false,
            init: None,
            out: None,
            checkpoint_every: Cadence::Epoch,
            keep: KEEP_MIN,
            keep_best: Metric::ValLoss,
            on_nan: OnNan::Skip,
            nan_limit: SKIPPED_IN_A_ROW_MAX,
            eval: true,
            max_slot_bytes: 1 << 30,
            cache: CacheKind::Off,
            cache_bytes: None,
            readers: None,
            prefetch: None,
            memory_budget: 1 << 30,
            transforms: Vec::new(),
            augment: Augment::Auto,
            eval_transforms: Vec::new(),
            model: "cnn".into(),
            optimizer: OptimizerConfig::adamw(),
            schedule: None,
            data: DataConfig::default(),
            sampling: SamplingConfig::default(),
        }
    }
}

impl RunConfig {
    /// Reads a configuration; `name` stands in errors.
    ///
    /// # Errors
    /// When the text is not TOML, or has a key that is not known or not of its type; names the line.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            Error::config(format!("{name}:{line}"), error.message().replace('\n', ", "))
        })?;
        config.settle();
        Ok(config)
    }

    /// Moves a [`Normalize`](crate::transform::Normalize) in a list of transforms to where it belongs, `data.mean` and
    /// `data.std`; of several the last one counts.
    pub fn settle(&mut self) {
        let data = &mut self.data;
        for list in [&mut self.transforms, &mut self.eval_transforms] {
            list.retain_mut(|transform| {
                let TransformConfig::Normalize(normalize) = transform else { return true };
                data.mean = Some(std::mem::take(&mut normalize.mean));
                data.std = Some(std::mem::take(&mut normalize.std));
                false
            });
        }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, and as [`RunConfig::parse`].
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::config(path.display(), "cannot be read").caused_by(e))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Saves the configuration as `config.toml` in the folder of a run, without `out`, and with the defaults of
    /// learning rate and schedule spelled out.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, run_dir: &Path) -> Result<()> {
        let path = run_dir.join("config.toml");
        let (lr, schedule) = (Some(self.base_lr()), Some(self.schedule()));
        let saved = Self { out: None, lr, schedule, ..self.clone() };
        let text = toml::to_string(&saved).map_err(|e| {
            Error::checkpoint(path.display(), "the configuration cannot be written").caused_by(e)
        })?;
        replace_file(&path, text.as_bytes())
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// Naming the first flag that is out of range, what was found and what is expected.
    pub fn validate(&self) -> Result<()> {
        self.validate_length()?;
        self.validate_update()?;
        self.validate_pipeline()?;
        self.data.validate()?;
        self.sampling.validate()?;
        self.validate_split()?;
        let mut transforms = self.transforms.iter().chain(&self.eval_transforms);
        transforms.try_for_each(TransformConfig::validate)?;
        self.optimizer.validate()?;
        self.schedule().validate()
    }

    /// Windows that overlap are no samples to hold some of out: the others show what is in them.
    fn validate_split(&self) -> Result<()> {
        let context = self.data.context.unwrap_or(tokens::CONTEXT);
        let stride = self.data.stride.unwrap_or(context);
        if self.sampling.val_split.is_none() || stride >= context {
            return Ok(());
        }
        let message = format!(
            "found it with --stride {stride}, below the context of {context}: what is held out would be trained on"
        );
        Err(Error::config("--val-split", message)
            .hint("inflight tokenize --val-share 0.1, or a folder with train.txt and val.txt"))
    }

    fn validate_length(&self) -> Result<()> {
        if let (Some(_), Some(_)) = (self.epochs, self.steps) {
            let message = "found both --epochs and --steps, expected one of them";
            return Err(Error::config("--steps", message).hint("leaving one out"));
        }
        in_range("--epochs", self.epochs.unwrap_or(1), 1, 1 << 40)?;
        in_range("--steps", self.steps.unwrap_or(1), 1, 1 << 32)?;
        in_range("--batch-size", self.batch_size as u64, 1, BATCH_SIZE_MAX as u64)?;
        in_range("--accumulate", self.accumulate as u64, 1, 1 << 20)
    }

    fn validate_update(&self) -> Result<()> {
        let positive =
            |x: f64| x.is_finite() && x > 0.0 && (x as f32) > 0.0 && (x as f32).is_finite();
        if !positive(self.base_lr()) {
            let expected = "a finite number above 0";
            return Err(wrong("--lr", self.base_lr(), expected).hint("--lr 0.001"));
        }
        if let Some(norm) = self.clip_norm.filter(|&norm| !positive(f64::from(norm))) {
            return Err(wrong("--clip-norm", norm, "a finite number above 0").hint("--clip-norm 1"));
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let expected = "0 up to, not including, 1";
            return Err(wrong("--label-smoothing", self.label_smoothing, expected).hint("0.1"));
        }
        self.mixing().validate()?;
        // As `f32` something must be left of 1 - decay.
        let averages = |decay: f64| decay >= 0.0 && (1.0 - decay) as f32 > f32::MIN_POSITIVE;
        if let Some(decay) = self.ema.filter(|&decay| !averages(decay)) {
            let expected = "0 up to, not including, 1";
            return Err(wrong("--ema", decay, expected).hint("--ema 0.999"));
        }
        self.precision()?;
        // TOML, in which the configuration is saved, has signed numbers of 64 bits.
        in_range("--seed", self.seed, 0, i64::MAX as u64)
    }

    fn validate_pipeline(&self) -> Result<()> {
        in_range("--workers", self.workers as u64, 0, WORKERS_MAX as u64)?;
        if let Some(slots) = self.slots.filter(|&slots| slots < 2 && !self.sync) {
            return Err(wrong("--slots", slots, "at least 2, for double buffering")
                .hint("--slots 3, or --sync to have every stage wait for the one before"));
        }
        in_range("--slots", self.slots.unwrap_or(0) as u64, 0, SLOTS_MAX as u64)?;
        in_range("--readers", self.readers.unwrap_or(0) as u64, 0, WORKERS_MAX as u64)?;
        in_range("--prefetch", self.prefetch.unwrap_or(0) as u64, 0, 1 << 16)?;
        in_range("--nan-limit", self.nan_limit.into(), 1, 1 << 20)?;
        // One alone may turn out damaged when it is needed.
        in_range("--keep", self.keep as u64, KEEP_MIN as u64, 1 << 20)
    }

    /// The precision that `precision` names.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn precision(&self) -> Result<Precision> {
        let refuse = |expected: String| wrong("--precision", &self.precision, &expected);
        self.precision.parse().map_err(refuse)
    }

    /// How many slots of `slot_bytes` each the ring has: what is asked for, or as many as may come into play, which is
    /// three, and more where they take no more than a quarter of their bound.
    ///
    /// # Errors
    /// When they take more than their bound; with all the numbers, and what to lower.
    pub fn ring(&self, slot_bytes: usize) -> Result<usize> {
        let (most, key) = match self.memory_budget < self.max_slot_bytes {
            true => (self.memory_budget, "memory_budget"),
            false => (self.max_slot_bytes, "max_slot_bytes"),
        };
        let found = || (most / 4 / slot_bytes.max(1)).clamp(SLOTS_FIRST, SLOTS_FOUND_MAX);
        let slots = if self.sync { 1 } else { self.slots.unwrap_or_else(found) };
        let ring_bytes = slot_bytes.saturating_mul(slots);
        if ring_bytes <= most {
            return Ok(slots);
        }
        let message = format!(
            "{slots} slots of {slot_bytes} bytes take {ring_bytes} bytes, expected at most {most} ({key})"
        );
        let fits = most / slots / (slot_bytes / self.batch_size.max(1)).max(1);
        Err(Error::config("--batch-size", message).hint(if fits > 0 {
            format!("--batch-size {fits}, or fewer --slots")
        } else {
            format!("fewer --slots, or a larger {key}")
        }))
    }

    /// How samples come to the workers; `ring_bytes` of the budget are the ring's.
    ///
    /// # Errors
    /// When there is no folder for a cache on disk.
    pub fn supply(&self, ring_bytes: usize) -> Result<Supply> {
        let path = self.dataset.as_ref().map(PathBuf::from).filter(|path| path.exists());
        let settings = || serde_json::to_string(&(&self.data, self.seed)).unwrap_or_default();
        let cache_dir = match self.cache {
            CacheKind::Disk => Some(default_cache_dir()?.join(DECODED)),
            CacheKind::Off | CacheKind::Ram => None,
        };
        Ok(Supply {
            cache: self.cache,
            cache_bytes: self.cache_bytes,
            origin: path.map(|path| (path, settings())),
            cache_dir,
            readers: self.readers,
            prefetch: self.prefetch,
            ahead_bytes: Some(self.memory_budget.saturating_sub(ring_bytes)),
        })
    }

    /// What is not given, and so found while the run goes on.
    pub fn find(&self) -> Find {
        let alone = self.sync;
        Find { workers: !alone && self.workers == 0, slots: !alone && self.slots.is_none() }
    }

    /// Preparing threads: what was asked for, or one a core, which is then the most.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }

    /// The order of the training samples; a stream has its own.
    ///
    /// # Errors
    /// When the samples are too few, or cannot be drawn or shared as asked for.
    pub fn sampler(&self, train: &dyn Source) -> Result<Sampler> {
        let (len, shuffle) = (train.len(), self.shuffle && train.len() != ENDLESS);
        let plain = Sampler::new(len, self.batch_size, self.seed, shuffle, self.drop_last)?;
        self.sampling.sampler(train, plain)
    }

    /// Optimizer steps of the whole run.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        let epochs = self.epochs.unwrap_or(DEFAULT_EPOCHS);
        self.steps.unwrap_or_else(|| epochs.saturating_mul(steps_per_epoch))
    }

    /// How training batches are mixed.
    pub fn mixing(&self) -> Mixing {
        Mixing { mixup: self.mixup, cutmix: self.cutmix }
    }

    /// The base learning rate: what was asked for, or the default.
    pub fn base_lr(&self) -> f64 {
        self.lr.unwrap_or(DEFAULT_LR)
    }

    /// The schedule: what was asked for, or what goes with the learning rate.
    pub fn schedule(&self) -> Schedule {
        let default = || match self.lr {
            Some(_) => Schedule::Constant {},
            None => Schedule::one_cycle(),
        };
        self.schedule.clone().unwrap_or_else(default)
    }

    /// The learning rate of every step (from 0) in a run of `total_steps`.
    pub fn learning_rate(&self, total_steps: u64) -> impl Fn(u64) -> f64 + Send + 'static {
        let schedule = self.schedule().warmed_up(self.warmup_steps);
        let base = self.base_lr();
        move |step| schedule.lr(base, step, total_steps)
    }
}

fn wrong(flag: &str, found: impl fmt::Display, expected: &str) -> Error {
    Error::config(flag, format!("found {found}, expected {expected}"))
}

fn in_range(flag: &str, found: u64, least: u64, most: u64) -> Result<()> {
    if found < least {
        return Err(wrong(flag, found, &format!("at least {least}")));
    }
    if found > most {
        return Err(wrong(flag, found, &format!("at most {most}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
