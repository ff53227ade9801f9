//! The flags of a training, and how they override a configuration.

use std::path::{Path, PathBuf};

use inflight::config::RunConfig;
use inflight::decode::DecodeSize;
use inflight::executor::Tune;
use inflight::nn::models::ModelConfig;
use inflight::nn::optimizers::OptimizerConfig;
use inflight::nn::schedules::Schedule;
use inflight::source::cache::CacheKind;
use inflight::source::{DataConfig, StreamFormat, Task};
use inflight::train::checkpoint::{Cadence, Metric};
use inflight::train::recovery::OnNan;
use inflight::transform::{Augment, TransformConfig};
use inflight::{Error, Result};
use serde::Deserialize;

use super::sampling::SamplingFlags;

/// A switch: `--flag`, or `--flag=false` to switch off what a config file switches on.
pub(super) const ON: &str = "true";

/// The settings of a run; each overrides the key of the same name in a config file.
#[derive(Debug, Default, clap::Args)]
pub struct Flags {
    /// A model's name (mlp, cnn, resnet18, resnet34, resnet50, vit-tiny; of text gpt-nano, gpt-mini, gpt2, llama-nano,
    /// llama-mini), or a TOML file with [[model.layers]], [model.gpt] or [model.llama] [default: cnn]
    #[arg(long, short, value_name = "M")]
    model: Option<String>,
    /// Share of features that a language model drops in training [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    dropout: Option<f64>,
    /// Share of the weights of attention that a language model drops in training [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    attention_dropout: Option<f64>,
    /// Passes over the training samples [default: 5]
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Optimizer steps, instead of epochs
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Samples a batch [default: 128]
    #[arg(long, short, value_name = "B")]
    batch_size: Option<usize>,
    /// Base learning rate; stays constant unless a schedule is given [default: 0.004, in one cycle]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    lr: Option<f64>,
    /// sgd, adam, adamw or muon [default: adamw]
    #[arg(long, value_name = "NAME")]
    optimizer: Option<String>,
    /// Momentum of sgd [default: 0.9] or muon [default: 0.95]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    momentum: Option<f64>,
    /// Weight decay of the optimizer [default: 0.01 for adamw, 0.1 for muon, else 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// Whether norms and biases decay as well, as they do in PyTorch [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = ON)]
    decay_norms_and_biases: Option<bool>,
    /// How the learning rate changes: constant, step, cosine or one-cycle
    #[arg(long, value_name = "NAME")]
    schedule: Option<String>,
    /// Steps of a linear rise of the learning rate before the schedule [default: 0]
    #[arg(long, value_name = "N")]
    warmup_steps: Option<u64>,
    /// Share of the target spread evenly over all classes [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    label_smoothing: Option<f64>,
    /// Average training samples in pairs, with a share from Beta(A, A), as 0.2
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    mixup: Option<f64>,
    /// Paste boxes of one training image into another, over a share from Beta(A, A), as 1; with --mixup by turns
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    cutmix: Option<f64>,
    /// Largest global norm of the gradients; longer ones are shortened to it
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    clip_norm: Option<f32>,
    /// Keep a moving average of the weights with this decay, as 0.999, and evaluate and save that
    #[arg(long, value_name = "DECAY", allow_negative_numbers = true)]
    ema: Option<f64>,
    /// Batches whose gradients are averaged into one step [default: 1]
    #[arg(long, value_name = "N")]
    accumulate: Option<usize>,
    /// Seed of everything random [default: 0]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// auto, cpu, gpu, gpu:K, or a part of an adapter's name (see `inflight devices`) [default: auto]
    #[arg(long, short, value_name = "D")]
    device: Option<String>,
    /// How much to tune on an adapter before training: off, fast (3 s) or full [default: fast]
    #[arg(long, value_name = "T")]
    tune: Option<Tune>,
    /// Preparing threads; 0 means one a core, and fewer if the run gains by it [default: 0]
    #[arg(long, value_name = "W")]
    workers: Option<usize>,
    /// Slots of the ring: batches prepared, on their way or computed at the same time [default: 3, up to 6 if the run gains by it]
    #[arg(long, value_name = "S")]
    slots: Option<usize>,
    /// Most bytes that the ring of slots may take [default: 1 GiB]
    #[arg(long, value_name = "BYTES")]
    max_slot_bytes: Option<usize>,
    /// Keep samples once they are read and decoded: off, ram, or disk for later runs too [default: off]
    #[arg(long, value_name = "WHERE")]
    cache: Option<CacheKind>,
    /// Most bytes that they may take, as 2GiB [default: 2 GiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    cache_bytes: Option<u64>,
    /// Threads that read ahead from a disk or a network; 0 for none [default: found during the run]
    #[arg(long, value_name = "N")]
    readers: Option<usize>,
    /// Batches that they read ahead [default: at least 4]
    #[arg(long, value_name = "N")]
    prefetch: Option<usize>,
    /// Most bytes that slots and samples read ahead take together, as 512MiB [default: 1 GiB]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory_budget: Option<u64>,
    /// The single-lane road: each stage waits for the one before
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = ON)]
    sync: Option<bool>,
    /// Take the samples in their order
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = ON)]
    no_shuffle: Option<bool>,
    /// Leave out the last batch of an epoch if it is not full
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = ON)]
    drop_last: Option<bool>,
    /// Do not evaluate the test split after every epoch
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = ON)]
    no_eval: Option<bool>,
    /// What is done to training images, in order, as random-resized-crop:scale=[0.3,1],horizontal-flip
    #[arg(long, value_name = "LIST")]
    transforms: Option<String>,
    /// Where flips, shifts and cutouts run that come last: auto, workers or device [default: auto]
    #[arg(long, value_name = "WHERE")]
    augment: Option<Augment>,
    /// What is done to images held out, in order, as resize:size=256,center-crop [default: the centre, fitted]
    #[arg(long, value_name = "LIST")]
    eval_transforms: Option<String>,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    sampling: SamplingFlags,
    /// How activations are stored: f32, or f16 for mixed precision [default: f32]
    #[arg(long, value_name = "P")]
    precision: Option<String>,
    /// Make activations again for the gradients instead of keeping them: less memory, more arithmetic
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = ON)]
    recompute: Option<bool>,
    /// Weights to start from: a safetensors file with PyTorch's names
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Folder of the run [default: a new one under runs/]
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How often to save: every so many steps, or as 30s or 10m, or epoch [default: epoch]
    #[arg(long, value_name = "N|TIME|epoch")]
    checkpoint_every: Option<Cadence>,
    /// Newest checkpoints that stay, at least 2 [default: 2]
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// By what the best checkpoint is told, which stays as well: val_loss, val_accuracy or off [default: val_loss]
    #[arg(long, value_name = "METRIC")]
    keep_best: Option<Metric>,
    /// What to do about gradients that are not finite, whose step is left out: skip it, stop, or rollback to the newest
    /// checkpoint with half the learning rate [default: skip]
    #[arg(long, value_name = "WHAT")]
    on_nan: Option<OnNan>,
    /// Such steps in a row after which the run has diverged [default: 10]
    #[arg(long, value_name = "N")]
    nan_limit: Option<u32>,
}

/// How a data set is read, where its files leave a choice; each overrides the key of the same name under `[data]`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DataFlags {
    /// Number of classes, for files that do not say
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Rows and columns of images as the model sees them [default: the files' own size, or 224]
    #[arg(long, value_name = "N")]
    image_size: Option<usize>,
    /// 1 for grey images, 3 for colour [default: what the files are]
    #[arg(long, value_name = "C")]
    channels: Option<usize>,
    /// JPEGs whose first crop shrinks by half or more: full, or reduced to decode them at 1/2, 1/4 or 1/8 of their size
    /// (feature turbojpeg; other pixels) [default: full]
    #[arg(long, value_name = "SIZE")]
    decode: Option<DecodeSize>,
    /// Samples of a stream: webdataset, raw or jsonl [default: what its beginning says]
    #[arg(long, value_name = "F", value_parser = stream_format)]
    format: Option<StreamFormat>,
    /// Samples of a stream that wait to leave in random order [default: in the order in which they come]
    #[arg(long, value_name = "N")]
    shuffle_buffer: Option<usize>,
    /// Folder of the cache of what comes from S3, GCS, Azure and HTTP [default: cloud in the folder of fetched data sets]
    #[arg(long, value_name = "DIR")]
    cloud_cache_dir: Option<PathBuf>,
    /// Most bytes that this cache may take [default: 32 GiB]
    #[arg(long, value_name = "BYTES")]
    cloud_cache_bytes: Option<u64>,
    /// Tokens that a model sees at once, of text [default: 256]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Tokens from the beginning of a training sample to that of the next; 1 draws them from anywhere [default: the context]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Number of different tokens, for files that do not say [default: one more than the highest found]
    #[arg(long, value_name = "N")]
    vocabulary: Option<usize>,
    /// What text is turned into tokens by: bytes, gpt2, or a tokenizer.json or its folder [default: bytes]
    #[arg(long, value_name = "T")]
    tokenizer: Option<String>,
    /// Let tokens attend only to those of their own document
    #[arg(long)]
    document_mask: bool,
    /// The token that ends a document [default: the one that ends a text to the tokenizer]
    #[arg(long, value_name = "TOKEN")]
    document_end: Option<u32>,
    /// Mean of each channel that images are normalised by, from 0 to 1, as 0.485,0.456,0.406 [default: the data's own]
    #[arg(long, value_name = "X,X,X", value_delimiter = ',', allow_negative_numbers = true)]
    mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, likewise
    #[arg(long, value_name = "X,X,X", value_delimiter = ',', allow_negative_numbers = true)]
    std: Option<Vec<f32>>,
    /// File or folder with the test part [default: what the data set holds; for a table x-train.csv the x-test.csv beside it]
    #[arg(long, value_name = "PATH")]
    test_data: Option<PathBuf>,
    /// Column of a table to predict: its name, its number from 1 on, or last [default: target, label, class or y]
    #[arg(long, value_name = "COLUMN")]
    target: Option<String>,
    /// Columns of a table that go in, or with a minus those that do not, as age,income or=-id [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    columns: Vec<String>,
    /// Columns of numbers that are names of categories
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    categorical: Vec<String>,
    /// Columns of numbers to cut into buckets of equally many rows, as age:10
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    bucketize: Vec<String>,
    /// Whether the target is to classify or to regress [default: text and whole numbers are classes]
    #[arg(long, value_name = "TASK")]
    task: Option<Task>,
    /// Whether the first row of a table names its columns [default: told by what is in it]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = ON)]
    header: Option<bool>,
    /// Folder that the paths in a list of files are relative to, and must lie in [default: the list's]
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Bytes that a Parquet or Arrow table may take in memory; a larger one is read as it is needed [default: 1 GiB]
    #[arg(long, value_name = "BYTES")]
    table_bytes: Option<usize>,
}

/// A format by the name that a configuration has for it.
fn stream_format(name: &str) -> Result<StreamFormat, String> {
    let value = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name);
    StreamFormat::deserialize(value).map_err(|e| e.to_string())
}

/// A tokenizer by its name, or by its path from anywhere.
fn tokenizer(name: &str) -> String {
    match name {
        "bytes" | "gpt2" => name.into(),
        path => absolute(Path::new(path)).display().to_string(),
    }
}

impl DataFlags {
    /// Overrides the keys of `config` that a flag was given for.
    pub fn apply(&self, config: &mut DataConfig) {
        config.classes = self.classes.or(config.classes);
        config.image_size = self.image_size.or(config.image_size);
        config.channels = self.channels.or(config.channels);
        config.decode = self.decode.or(config.decode);
        config.format = self.format.or(config.format);
        config.shuffle_buffer = self.shuffle_buffer.or(config.shuffle_buffer);
        if let Some(dir) = &self.cloud_cache_dir {
            config.cloud_cache_dir = Some(std::path::absolute(dir).unwrap_or_else(|_| dir.clone()));
        }
        config.cloud_cache_bytes = self.cloud_cache_bytes.or(config.cloud_cache_bytes);
        config.context = self.context.or(config.context);
        config.stride = self.stride.or(config.stride);
        config.vocabulary = self.vocabulary.or(config.vocabulary);
        set_some(&mut config.tokenizer, self.tokenizer.as_deref().map(tokenizer));
        config.document_mask |= self.document_mask;
        config.document_end = self.document_end.or(config.document_end);
        config.mean = self.mean.clone().or_else(|| config.mean.take());
        config.std = self.std.clone().or_else(|| config.std.take());
        set_some(&mut config.test, self.test_data.as_deref().map(absolute));
        set_some(&mut config.target, self.target.clone());
        set_list(&mut config.columns, &self.columns);
        set_list(&mut config.categorical, &self.categorical);
        set_list(&mut config.bucketize, &self.bucketize);
        set_some(&mut config.task, self.task);
        set_some(&mut config.header, self.header);
        set_some(&mut config.image_root, self.image_root.as_deref().map(absolute));
        set_some(&mut config.table_bytes, self.table_bytes);
    }
}

impl Flags {
    /// Overrides the keys of `config` that a flag was given for, except for the schedule.
    ///
    /// # Errors
    /// When a name is not known, or a setting is not one of the optimizer's.
    pub fn apply(&self, config: &mut RunConfig) -> Result<()> {
        self.apply_length(config);
        if let Some(model) = &self.model {
            config.model = model_config(model)?;
        }
        if let Some(dropout) = self.dropout {
            let language = config.model.language().ok_or_else(|| {
                let message = "found it with a model of no language";
                Error::config("--dropout", message).hint("a dropout layer in [[model.layers]]")
            })?;
            config.model = language.with_dropout(dropout).into();
        }
        if let Some(dropout) = self.attention_dropout {
            let language = config.model.language().ok_or_else(|| {
                Error::config("--attention-dropout", "found it with a model of no language")
            })?;
            config.model = language.with_attention_dropout(dropout).into();
        }
        self.apply_optimizer(config)?;
        set(&mut config.batch_size, self.batch_size);
        set(&mut config.warmup_steps, self.warmup_steps);
        set(&mut config.label_smoothing, self.label_smoothing);
        set(&mut config.accumulate, self.accumulate);
        set(&mut config.seed, self.seed);
        set(&mut config.device, self.device.clone());
        set(&mut config.tune, self.tune);
        set(&mut config.workers, self.workers);
        config.slots = self.slots.or(config.slots);
        set(&mut config.max_slot_bytes, self.max_slot_bytes);
        set(&mut config.cache, self.cache);
        set(&mut config.memory_budget, self.memory_budget.map(|bytes| bytes as usize));
        config.cache_bytes = self.cache_bytes.or(config.cache_bytes);
        config.readers = self.readers.or(config.readers);
        config.prefetch = self.prefetch.or(config.prefetch);
        set(&mut config.sync, self.sync);
        set(&mut config.shuffle, self.no_shuffle.map(|no| !no));
        set(&mut config.drop_last, self.drop_last);
        set(&mut config.eval, self.no_eval.map(|no| !no));
        set(&mut config.precision, self.precision.clone());
        set(&mut config.recompute, self.recompute);
        if let Some(list) = &self.transforms {
            config.transforms = TransformConfig::parse_list("--transforms", list)?;
        }
        set(&mut config.augment, self.augment);
        if let Some(list) = &self.eval_transforms {
            config.eval_transforms = TransformConfig::parse_list("--eval-transforms", list)?;
        }
        config.settle();
        self.data.apply(&mut config.data);
        self.sampling.apply(&mut config.sampling)?;
        set(&mut config.checkpoint_every, self.checkpoint_every);
        set(&mut config.keep, self.keep);
        set(&mut config.keep_best, self.keep_best);
        set(&mut config.on_nan, self.on_nan);
        set(&mut config.nan_limit, self.nan_limit);
        config.lr = self.lr.or(config.lr);
        config.clip_norm = self.clip_norm.or(config.clip_norm);
        config.mixup = self.mixup.or(config.mixup);
        config.cutmix = self.cutmix.or(config.cutmix);
        config.ema = self.ema.or(config.ema);
        if let Some(init) = &self.init {
            config.init = Some(absolute(init));
        }
        if self.out.is_some() {
            config.out.clone_from(&self.out);
        }
        Ok(())
    }

    /// Either length replaces the other one of a config file; given both, validation complains.
    fn apply_length(&self, config: &mut RunConfig) {
        if self.epochs.is_some() || self.steps.is_some() {
            (config.epochs, config.steps) = (self.epochs, self.steps);
        }
    }

    /// Overrides the schedule, which can depend on the length of the run.
    ///
    /// # Errors
    /// When the name is not known.
    pub fn apply_schedule(&self, config: &mut RunConfig, total_steps: u64) -> Result<()> {
        if let Some(name) = &self.schedule {
            let steps = total_steps.saturating_sub(config.warmup_steps);
            config.schedule = Some(Schedule::by_name(name, steps)?);
        }
        Ok(())
    }

    /// The model asked for by name, where there is one.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Whether a folder for the run was asked for.
    pub fn has_out(&self) -> bool {
        self.out.is_some()
    }

    fn apply_optimizer(&self, config: &mut RunConfig) -> Result<()> {
        if let Some(name) = &self.optimizer {
            let named = OptimizerConfig::by_name(name)?;
            // The settings of a config file stay where the name stays.
            if named.name() != config.optimizer.name() {
                config.optimizer = named;
            }
        }
        if let Some(value) = self.momentum {
            match &mut config.optimizer {
                OptimizerConfig::Sgd { momentum, .. } | OptimizerConfig::Muon { momentum, .. } => {
                    *momentum = value
                }
                other => {
                    let message = format!("found it with {}, which has no momentum", other.name());
                    return Err(Error::config("--momentum", message).hint("--optimizer sgd"));
                }
            }
        }
        if let Some(value) = self.weight_decay {
            match &mut config.optimizer {
                OptimizerConfig::Sgd { weight_decay, .. }
                | OptimizerConfig::Adam { weight_decay, .. }
                | OptimizerConfig::AdamW { weight_decay, .. }
                | OptimizerConfig::Muon { weight_decay, .. } => *weight_decay = value,
            }
        }
        if let Some(value) = self.decay_norms_and_biases {
            match &mut config.optimizer {
                OptimizerConfig::Sgd { decay_norms_and_biases, .. }
                | OptimizerConfig::Adam { decay_norms_and_biases, .. }
                | OptimizerConfig::AdamW { decay_norms_and_biases, .. }
                | OptimizerConfig::Muon { decay_norms_and_biases, .. } => {
                    *decay_norms_and_biases = value;
                }
            }
        }
        Ok(())
    }
}

/// Absolute, so that the saved configuration means the same from every folder.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

fn set_some<T>(key: &mut Option<T>, flag: Option<T>) {
    if flag.is_some() {
        *key = flag;
    }
}

fn set_list(key: &mut Vec<String>, flag: &[String]) {
    if !flag.is_empty() {
        *key = flag.to_vec();
    }
}

/// A number of bytes: `4096`, `512MiB`, `2GB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("", 1),
        ("kb", 1000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
    ];
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ').len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let bytes =
        number.parse::<u64>().ok().zip(factor).and_then(|(n, factor)| n.checked_mul(factor));
    bytes.ok_or_else(|| format!("found {text}, expected a number of bytes such as 512MiB"))
}

pub(super) fn set<T>(key: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *key = value;
    }
}

/// A model by name, or the one of a TOML file, which may be the configuration of a run.
///
/// # Errors
/// When the file cannot be read or has no model.
pub fn model_config(name: &str) -> Result<ModelConfig> {
    #[derive(Deserialize)]
    struct File {
        model: ModelConfig,
    }

    if Path::new(name).extension().is_none_or(|extension| extension != "toml") {
        return Ok(name.into());
    }
    let text = std::fs::read_to_string(name)
        .map_err(|e| Error::config(name, "cannot be read").caused_by(e))?;
    let file: File =
        toml::from_str(&text).map_err(|e| Error::config(name, e.message().replace('\n', ", ")))?;
    Ok(file.model)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use inflight::quarantine::{Budget, OnBadSample};
    use inflight::sampler::SamplingConfig;

    use inflight::nn::gpt::GptConfig;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn apply(config: &str, line: &str) -> Result<RunConfig> {
        let mut config = RunConfig::parse(config, "run.toml")?;
        let words = std::iter::once("inflight").chain(line.split_whitespace());
        Line::parse_from(words).flags.apply(&mut config)?;
        Ok(config)
    }

    #[test]
    fn every_flag_overrides_its_key() {
        let line = "--model mlp --epochs 3 --batch-size 7 --lr 0.5 --optimizer sgd --momentum 0.1 \
                    --weight-decay 0.2 --decay-norms-and-biases=false --warmup-steps 4 --label-smoothing 0.1 --mixup 0.2 --cutmix 1 --clip-norm 2 --ema 0.9 --accumulate 5 \
                    --seed 6 --device cpu --tune full --workers 8 --slots 9 --max-slot-bytes 10 --cache disk --cache-bytes 3KiB --readers 21 --prefetch 22 --memory-budget 23 --sync --no-shuffle \
                    --drop-last --no-eval --transforms pad-crop --augment device --eval-transforms resize --classes 13 --image-size 14 --channels 1 --decode reduced \
                    --mean 0.5 --std 0.25,0.5 --format raw --shuffle-buffer 15 --cloud-cache-dir /c --cloud-cache-bytes 16 --context 15 --stride 16 --vocabulary 17 --document-mask --document-end 3 --tokenizer gpt2 \
                    --val-split 0.2 --shuffle-block 15 --balance --class-weights a=2,b=0.5 --rank 1 --world 3 --on-bad-sample skip --bad-sample-budget 2% \
                    --test-data /t --target y --columns -a,b --categorical c --bucketize d:3,e:4 --task regress --header=false --image-root /r --table-bytes 15 --precision f16 --recompute --init /w --out o --checkpoint-every 11 --keep 12 --keep-best val_accuracy --on-nan rollback --nan-limit 13";
        let found = apply("", line).expect("all flags are known");
        let optimizer = OptimizerConfig::Sgd {
            momentum: 0.1,
            nesterov: false,
            weight_decay: 0.2,
            decay_norms_and_biases: false,
        };
        let expected = RunConfig {
            dataset: None,
            epochs: Some(3),
            steps: None,
            batch_size: 7,
            lr: Some(0.5),
            warmup_steps: 4,
            label_smoothing: 0.1,
            mixup: Some(0.2),
            cutmix: Some(1.0),
            clip_norm: Some(2.0),
            ema: Some(0.9),
            accumulate: 5,
            seed: 6,
            device: "cpu".into(),
            tune: Tune::Full,
            workers: 8,
            slots: Some(9),
            sync: true,
            shuffle: false,
            drop_last: true,
            precision: "f16".into(),
            recompute: true,
            init: Some("/w".into()),
            out: Some("o".into()),
            checkpoint_every: Cadence::Steps(11),
            keep: 12,
            keep_best: Metric::ValAccuracy,
            on_nan: OnNan::Rollback,
            nan_limit: 13,
            eval: false,
            max_slot_bytes: 10,
            cache: CacheKind::Disk,
            cache_bytes: Some(3072),
            readers: Some(21),
            prefetch: Some(22),
            memory_budget: 23,
            model: "mlp".into(),
            transforms: vec![TransformConfig::PadCrop(Default::default())],
            augment: Augment::Device,
            eval_transforms: vec![TransformConfig::Resize(Default::default())],
            optimizer,
            schedule: None,
            sampling: SamplingConfig {
                val_split: Some(0.2),
                shuffle_block: Some(15),
                balance: true,
                rank: 1,
                world: 3,
                on_bad_sample: OnBadSample::Skip,
                bad_sample_budget: Budget::Percent(2.0),
                class_weights: [("a".into(), 2.0), ("b".into(), 0.5)].into(),
            },
            data: DataConfig {
                classes: Some(13),
                image_size: Some(14),
                channels: Some(1),
                decode: Some(DecodeSize::Reduced),
                format: Some(StreamFormat::Raw),
                shuffle_buffer: Some(15),
                cloud_cache_dir: Some("/c".into()),
                cloud_cache_bytes: Some(16),
                context: Some(15),
                document_mask: true,
                document_end: Some(3),
                stride: Some(16),
                vocabulary: Some(17),
                tokenizer: Some("gpt2".into()),
                mean: Some(vec![0.5]),
                std: Some(vec![0.25, 0.5]),
                test: Some("/t".into()),
                target: Some("y".into()),
                columns: vec!["-a".into(), "b".into()],
                categorical: vec!["c".into()],
                bucketize: vec!["d:3".into(), "e:4".into()],
                task: Some(Task::Regress),
                header: Some(false),
                image_root: Some("/r".into()),
                table_bytes: Some(15),
            },
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_no_flag_names_stays() {
        let config = "epochs = 9\nsync = true\n[optimizer]\ntype = \"sgd\"\nmomentum = 0.5";
        let found = apply(config, "--steps 3 --sync=false --optimizer sgd").expect("valid");
        assert_eq!((found.epochs, found.steps, found.sync), (None, Some(3), false));
        assert!(matches!(found.optimizer, OptimizerConfig::Sgd { momentum: 0.5, .. }));
        let refused = apply("", "--dropout 0.5").expect_err("cnn has none").to_string();
        assert!(refused.contains("--dropout") && refused.contains("no language"), "{refused}");
        let found = apply("", "--model gpt-nano --dropout 0.5").expect("valid");
        assert_eq!(found.model, GptConfig { dropout: 0.5, ..GptConfig::NANO }.into());
        let found = apply("", "--model gpt-nano --attention-dropout 0.25").expect("valid");
        assert_eq!(found.model, GptConfig { attention_dropout: 0.25, ..GptConfig::NANO }.into());
        assert!(apply("", "--attention-dropout 0.5").is_err());
        let refused = apply("", "--momentum 0.5").expect_err("adamw has none").to_string();
        assert!(refused.contains("--momentum") && refused.contains("adamw"), "{refused}");
    }

    #[test]
    fn schedules_can_depend_on_the_length_of_the_run() {
        let mut config = RunConfig::default();
        let flags = Line::parse_from(["inflight", "--schedule", "step"]).flags;
        flags.apply_schedule(&mut config, 300).expect("a known name");
        assert_eq!(config.schedule, Some(Schedule::Step { every: 100, gamma: 0.1 }));
    }
}
