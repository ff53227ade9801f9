//! `inflight eval`: how good trained weights are on a data set.

use std::path::PathBuf;
use std::sync::Arc;

use inflight::quarantine::{Budget, OnBadSample};
use inflight::source::{DataConfig, Dataset, Source};
use inflight::train::evaluate::{EvalOptions, Evaluation, evaluate};
use inflight::transform::TransformConfig;
use inflight::{Error, Result};
use serde::Serialize;

use super::flags::{DataFlags, model_config};
use super::print;
use super::progress::{measures, text_measures};
use super::runs::Trained;
use super::train::open_dataset;

/// Evaluate trained weights on a data set
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder of a run (its newest checkpoint), a checkpoint, or a .safetensors file
    #[arg(value_name = "CHECKPOINT|RUN")]
    path: PathBuf,
    /// A data set's name or path [default: the one of the run]
    #[arg(long, value_name = "D")]
    dataset: Option<String>,
    /// Which part of it [default: test, where there is one, else what --val-split held out, else train]
    #[arg(long, value_name = "SPLIT")]
    split: Option<Split>,
    /// The model that the weights are for [default: the one of the run]
    #[arg(long, short, value_name = "M")]
    model: Option<String>,
    /// What is done to images, in order, as resize:size=256,center-crop [default: what the run was evaluated with]
    #[arg(long, value_name = "LIST")]
    eval_transforms: Option<String>,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    device: DeviceFlags,
    /// What to do about a sample that cannot be read or decoded: error, or skip to leave it out [default: what the run
    /// did]
    #[arg(long, value_name = "WHAT")]
    on_bad_sample: Option<OnBadSample>,
    /// Bad samples after which the evaluation ends: a number, or a share, as 1% [default: that of the run, or 100]
    #[arg(long, value_name = "N")]
    bad_sample_budget: Option<Budget>,
    /// Samples a batch
    #[arg(long, short, value_name = "B", default_value_t = 128)]
    batch_size: usize,
    /// Print the result as a line of JSON to stdout
    #[arg(long)]
    json: bool,
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What is trained on
    Train,
    /// What the run held out of it, by --val-split
    Val,
    /// What is there to test with
    Test,
}

/// Where to compute.
#[derive(Debug, clap::Args)]
pub struct DeviceFlags {
    /// auto, cpu, gpu, gpu:K, or a part of an adapter's name (see `inflight devices`)
    #[arg(long, short, value_name = "D", default_value = "auto")]
    device: String,
    /// Preparing threads; 0 means one a core
    #[arg(long, value_name = "W", default_value_t = 0)]
    workers: usize,
}

impl DeviceFlags {
    /// Options for an evaluation in batches of `batch_size`.
    pub fn options(&self, batch_size: usize, outputs: bool) -> Result<EvalOptions> {
        // The same bounds as for a training.
        let config = inflight::RunConfig {
            device: self.device.clone(),
            workers: self.workers,
            batch_size,
            ..Default::default()
        };
        config.validate()?;
        let workers = config.worker_count();
        let device = config.device;
        Ok(EvalOptions { device, batch_size, workers, outputs, ..Default::default() })
    }
}

#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    dataset: &'a str,
    split: Split,
    weights: &'a std::path::Path,
    #[serde(flatten)]
    evaluation: &'a Evaluation,
}

/// Whether two names are those of the same data, however a path is written.
fn is_same(one: &str, other: &str) -> bool {
    let real = |name| std::fs::canonicalize(name).ok();
    one == other || real(one).is_some_and(|path| real(other) == Some(path))
}

/// Evaluates.
pub fn run(args: Args) -> Result<()> {
    let mut options = args.device.options(args.batch_size, false)?;
    let trained = Trained::open(&args.path)?;
    let model = trained.model(args.model.as_deref().map(model_config).transpose()?)?;
    let of_run = || trained.run.as_ref().and_then(|run| run.config.dataset.clone());
    let name = args.dataset.clone().or_else(of_run).ok_or_else(|| {
        Error::config("--dataset", "is needed for weights outside the folder of a run")
            .hint("--dataset fashion-mnist")
    })?;
    let mut config = trained.run.as_ref().map_or_else(Default::default, |run| run.config.clone());
    args.data.apply(&mut config.data);
    if let Some(list) = &args.eval_transforms {
        config.eval_transforms = TransformConfig::parse_list("--eval-transforms", list)?;
        config.settle();
    }
    let fitted = trained.run.as_ref().and_then(|run| run.inputs.fitted.clone()).map(Arc::new);
    let mut dataset = open_dataset(&name, &config.data, fitted.as_ref())?;
    if config.dataset.as_ref().is_some_and(|of_run| is_same(of_run, &name)) {
        dataset = config.sampling.split(dataset, config.seed)?;
    }
    let (split, source) = choose(args.split, &dataset)?;
    if let Some(run) = &trained.run {
        run.inputs.check_classes(&*source)?;
        run.inputs.check_tokens(&*source)?;
        if split == Split::Val && config.sampling.val_split.is_some() {
            run.inputs.check_held_out(&*dataset.train)?;
        }
    }
    // Of a run, the statistics are those it was trained with, unless others are asked for.
    let statistics = |data: &DataConfig| (data.mean.clone(), data.std.clone());
    let before = trained.run.as_ref().map(|run| statistics(&run.config.data));
    let given = before.is_none_or(|before| before != statistics(&config.data));
    let of_run = trained.run.as_ref().filter(|_| !given).map(|run| &run.inputs.info);
    let info = of_run.unwrap_or(dataset.train.info());
    (options.transforms, options.seed) = (config.eval_transforms, config.seed);
    let sampling = &config.sampling;
    options.on_bad_sample = args.on_bad_sample.unwrap_or(sampling.on_bad_sample);
    options.bad_sample_budget = args.bad_sample_budget.unwrap_or(sampling.bad_sample_budget);
    let module = model.build(source.spec())?;
    let evaluation = evaluate(&module, &trained.weights, source, info, &options)?;
    if args.json {
        let weights = trained.path.as_path();
        let evaluation = &evaluation;
        return print::json(&Event {
            event: "eval",
            dataset: &dataset.name,
            split,
            weights,
            evaluation,
        });
    }
    print::data(format!(
        "{} ({}): {}{} over {} samples",
        dataset.name,
        split.name(),
        measures(Some(evaluation.loss), evaluation.accuracy),
        text_measures(&evaluation.text),
        print::count(evaluation.samples)
    ));
    if evaluation.left_out > 0 {
        print::note(format!("{} bad samples were left out", print::count(evaluation.left_out)));
    }
    print::note(format!(
        "{} · {} samples/s on {}",
        trained.path.display(),
        print::rate(evaluation.samples_per_s),
        evaluation.device.name
    ));
    Ok(())
}

impl Split {
    fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}

/// The part that is asked for, or the one that says most.
fn choose(asked: Option<Split>, dataset: &Dataset) -> Result<(Split, Arc<dyn Source>)> {
    let missing = |what| Err(Error::data(&dataset.name, what));
    match (asked, &dataset.validation, &dataset.test) {
        (None | Some(Split::Test), _, Some(test)) => Ok((Split::Test, test.clone())),
        (None | Some(Split::Val), Some(held_out), _) => Ok((Split::Val, held_out.clone())),
        (None | Some(Split::Train), ..) => Ok((Split::Train, dataset.train.clone())),
        (Some(Split::Test), ..) => {
            missing("has no test split").map_err(|e| e.hint("--split train"))
        }
        (Some(Split::Val), ..) => missing("was not split by the run")
            .map_err(|e| e.hint("inflight train --val-split 0.1")),
    }
}
