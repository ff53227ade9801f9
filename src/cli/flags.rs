//! The flags of a training, and how they override a configuration.

use std::path::{Path, PathBuf};

use inflight::config::RunConfig;
use inflight::executor::Tune;
use inflight::nn::models::ModelConfig;
use inflight::nn::optimizers::OptimizerConfig;
use inflight::nn::schedules::Schedule;
use inflight::source::DataConfig;
use inflight::transform::{Augment, TransformConfig};
use inflight::{Error, Result};
use serde::Deserialize;

/// A switch: `--flag`, or `--flag=false` to switch off what a config file switches on.
const ON: &str = "true";

/// The settings of a run; each overrides the key of the same name in a config file.
#[derive(Debug, Default, clap::Args)]
pub struct Flags {
    /// A model's name (mlp, cnn, resnet18, resnet34, resnet50, vit-tiny), or a TOML file with [[model.layers]] [default: cnn]
    #[arg(long, short, value_name = "M")]
    model: Option<String>,
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
    /// sgd, adam or adamw [default: adamw]
    #[arg(long, value_name = "NAME")]
    optimizer: Option<String>,
    /// Momentum of sgd [default: 0.9]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    momentum: Option<f64>,
    /// Weight decay of the optimizer [default: 0.01 for adamw, else 0]
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
    /// Preparing threads; 0 means one a core [default: 0]
    #[arg(long, value_name = "W")]
    workers: Option<usize>,
    /// Slots of the ring: batches prepared, on their way or computed at the same time [default: 3]
    #[arg(long, value_name = "S")]
    slots: Option<usize>,
    /// Most bytes that the ring of slots may take [default: 1 GiB]
    #[arg(long, value_name = "BYTES")]
    max_slot_bytes: Option<usize>,
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
    /// Steps between checkpoints; 0 means at the end of every epoch [default: 0]
    #[arg(long, value_name = "N")]
    checkpoint_every: Option<u64>,
    /// Newest checkpoints that stay [default: 2]
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
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
    /// Mean of each channel that images are normalised by, from 0 to 1, as 0.485,0.456,0.406 [default: the data's own]
    #[arg(long, value_name = "X,X,X", value_delimiter = ',', allow_negative_numbers = true)]
    mean: Option<Vec<f32>>,
    /// Standard deviation of each channel, likewise
    #[arg(long, value_name = "X,X,X", value_delimiter = ',', allow_negative_numbers = true)]
    std: Option<Vec<f32>>,
}

impl DataFlags {
    /// Overrides the keys of `config` that a flag was given for.
    pub fn apply(&self, config: &mut DataConfig) {
        config.classes = self.classes.or(config.classes);
        config.image_size = self.image_size.or(config.image_size);
        config.channels = self.channels.or(config.channels);
        config.mean = self.mean.clone().or_else(|| config.mean.take());
        config.std = self.std.clone().or_else(|| config.std.take());
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
        self.apply_optimizer(config)?;
        set(&mut config.batch_size, self.batch_size);
        set(&mut config.warmup_steps, self.warmup_steps);
        set(&mut config.label_smoothing, self.label_smoothing);
        set(&mut config.accumulate, self.accumulate);
        set(&mut config.seed, self.seed);
        set(&mut config.device, self.device.clone());
        set(&mut config.tune, self.tune);
        set(&mut config.workers, self.workers);
        set(&mut config.slots, self.slots);
        set(&mut config.max_slot_bytes, self.max_slot_bytes);
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
        set(&mut config.checkpoint_every, self.checkpoint_every);
        set(&mut config.keep, self.keep);
        config.lr = self.lr.or(config.lr);
        config.clip_norm = self.clip_norm.or(config.clip_norm);
        config.mixup = self.mixup.or(config.mixup);
        config.cutmix = self.cutmix.or(config.cutmix);
        config.ema = self.ema.or(config.ema);
        if let Some(init) = &self.init {
            // Absolute, so that the saved configuration means the same from every folder.
            config.init = Some(std::path::absolute(init).unwrap_or_else(|_| init.clone()));
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
                OptimizerConfig::Sgd { momentum, .. } => *momentum = value,
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
                | OptimizerConfig::AdamW { weight_decay, .. } => *weight_decay = value,
            }
        }
        if let Some(value) = self.decay_norms_and_biases {
            match &mut config.optimizer {
                OptimizerConfig::Sgd { decay_norms_and_biases, .. }
                | OptimizerConfig::Adam { decay_norms_and_biases, .. }
                | OptimizerConfig::AdamW { decay_norms_and_biases, .. } => {
                    *decay_norms_and_biases = value;
                }
            }
        }
        Ok(())
    }
}

fn set<T>(key: &mut T, flag: Option<T>) {
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
                    --seed 6 --device cpu --tune full --workers 8 --slots 9 --max-slot-bytes 10 --sync --no-shuffle \
                    --drop-last --no-eval --transforms pad-crop --augment device --eval-transforms resize --classes 13 --image-size 14 --channels 1 --mean 0.5 --std 0.25,0.5 --precision f16 --recompute --init /w --out o --checkpoint-every 11 --keep 12";
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
            slots: 9,
            sync: true,
            shuffle: false,
            drop_last: true,
            precision: "f16".into(),
            recompute: true,
            init: Some("/w".into()),
            out: Some("o".into()),
            checkpoint_every: 11,
            keep: 12,
            eval: false,
            max_slot_bytes: 10,
            model: "mlp".into(),
            transforms: vec![TransformConfig::PadCrop(Default::default())],
            augment: Augment::Device,
            eval_transforms: vec![TransformConfig::Resize(Default::default())],
            optimizer,
            schedule: None,
            data: DataConfig {
                classes: Some(13),
                image_size: Some(14),
                channels: Some(1),
                mean: Some(vec![0.5]),
                std: Some(vec![0.25, 0.5]),
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
