//! `inflight inspect`: what a data set holds.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use inflight::batch::SampleSpec;
use inflight::source::shard_manifest::ShardManifest;
use inflight::source::table::{Feature, FeatureEncoding, Fitted};
use inflight::source::tokens::{TokenStatistics, token_statistics};
use inflight::source::{
    Dataset, ENDLESS, Source, Statistics, Target, Viewer, contact_sheet, statistics,
    transformed_sheet,
};
use inflight::transform::{self, TransformConfig};
use inflight::{Error, Result, RunConfig};
use serde::Serialize;

use super::flags::DataFlags;
use super::plan::dataset_line;
use super::print;
use super::train::open_dataset;

/// Show what a data set holds
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A data set's name or path
    #[arg(value_name = "DATASET")]
    dataset: String,
    #[command(flatten)]
    data: DataFlags,
    /// Write a contact sheet: the first samples of each class of the training split, a class a row
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Read all shards first and hold them against the hashes in their manifest
    #[arg(long)]
    verify: bool,
    /// Have the sheet show one sample of each class a row: as it is, then as it reaches the device in each epoch
    #[arg(long, requires = "sheet")]
    transformed: bool,
    /// What is done to the images of the sheet, in order, as for `inflight train`
    #[arg(long, value_name = "LIST", requires = "transformed")]
    transforms: Option<String>,
    /// Seed of what the transforms draw
    #[arg(long, value_name = "S", default_value_t = 0, requires = "transformed")]
    seed: u64,
    /// Print the findings as a line of JSON to stdout
    #[arg(long)]
    json: bool,
}

/// Samples of each class on a contact sheet.
const SHEET_COLUMNS: usize = 16;

/// Samples of a stream that are shown.
const FIRST_SAMPLES: usize = 8;
/// A sample and its draws on a sheet of transformed ones.
const DRAWN_COLUMNS: usize = 9;

/// Cells of the longest bar of a histogram.
const BAR_CELLS: f64 = 40.0;

#[derive(Serialize)]
struct Event {
    event: &'static str,
    dataset: String,
    path: PathBuf,
    /// Bytes of the shards that were found as their manifest says, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_bytes: Option<u64>,
    splits: Vec<Split>,
    /// What the encoding of a table was fitted to.
    #[serde(skip_serializing_if = "Option::is_none")]
    fitted: Option<Fitted>,
}

#[derive(Serialize)]
struct Split {
    split: &'static str,
    class_names: Vec<String>,
    #[serde(flatten)]
    findings: Findings,
}

/// What there is to tell about samples.
#[derive(Serialize)]
#[serde(untagged)]
enum Findings {
    /// Of tokens.
    Tokens(TokenStatistics),
    /// Of all others.
    Samples(Statistics),
}

/// Inspects a data set.
pub fn run(args: Args) -> Result<()> {
    let mut config = RunConfig::default();
    args.data.apply(&mut config.data);
    // Each token is looked at once, however samples are cut for training.
    config.data.stride = None;
    if let Some(list) = &args.transforms {
        config.transforms = TransformConfig::parse_list("--transforms", list)?;
        config.settle();
    }
    config.validate()?;
    let dataset = open_dataset(&args.dataset, &config.data, None)?;
    if dataset.train.len() == ENDLESS {
        return inspect_stream(&dataset, args.json);
    }
    transform::check(&config.transforms, &*dataset.train)?;
    let verified = if args.verify { Some(verify(&dataset.path)?) } else { None };
    let mut splits = vec![split("train", &*dataset.train)?];
    if let Some(validation) = &dataset.validation {
        splits.push(split("val", &**validation)?);
    }
    if let Some(test) = &dataset.test {
        splits.push(split("test", &**test)?);
    }
    if let Some(path) = &args.sheet {
        let sheet = if args.transformed {
            let transforms = config.transforms.iter().filter_map(TransformConfig::build);
            let mut viewer = Viewer::of(transforms.collect(), args.seed);
            transformed_sheet(&*dataset.train, &mut viewer, DRAWN_COLUMNS)?
        } else {
            contact_sheet(&*dataset.train, SHEET_COLUMNS)?
        };
        sheet.save(path).map_err(|e| {
            Error::config("--sheet", format!("{} cannot be written", path.display())).caused_by(e)
        })?;
    }
    if args.json {
        let fitted = dataset.train.fitted().map(|fitted| (**fitted).clone());
        let (dataset, path) = (dataset.name, dataset.path);
        let event =
            Event { event: "inspect", dataset, path, verified_bytes: verified, splits, fitted };
        return print::json(&event);
    }
    if let Some(bytes) = verified {
        print::note(format!("{} of shards are as their manifest says", print::bytes(bytes)));
    }
    print::data(format!("{} ({})", dataset.name, dataset.path.display()));
    splits.iter().for_each(show);
    if let Some(fitted) = dataset.train.fitted() {
        show_columns(fitted);
    }
    if let Some(path) = &args.sheet {
        print::note(format!("contact sheet: {}", path.display()));
    }
    Ok(())
}

/// The first samples of a stream, which has no statistics before its end.
#[derive(Serialize)]
struct StreamEvent {
    event: &'static str,
    dataset: String,
    stream: bool,
    spec: SampleSpec,
    samples: Vec<First>,
}

#[derive(Serialize)]
struct First {
    origin: String,
    input_bytes: usize,
    label: Option<u32>,
}

fn inspect_stream(dataset: &Dataset, json: bool) -> Result<()> {
    let source = &*dataset.train;
    let mut samples = Vec::new();
    let mut scratch = Vec::new();
    for index in 0..FIRST_SAMPLES {
        if !source.reaches(&[index]) {
            break;
        }
        source.prefetch(&[index])?;
        let origin = source.origin(index).unwrap_or_default();
        let sample = source.read(index, &mut scratch)?;
        let label = match sample.target {
            Target::Class(label) => Some(label),
            _ => None,
        };
        samples.push(First { origin, input_bytes: sample.input.len(), label });
        // As it came, and as it would reach the device.
        Viewer::default().read(source, index)?;
    }
    if json {
        let (dataset, spec) = (dataset.name.clone(), source.spec().clone());
        return print::json(&StreamEvent {
            event: "inspect",
            dataset,
            stream: true,
            spec,
            samples,
        });
    }
    print::data(dataset_line(dataset));
    print::data(format!("the first {} samples:", samples.len()));
    for sample in &samples {
        let label = sample.label.map_or(String::new(), |label| format!(" · class {label}"));
        print::data(format!(
            "  {}: {} bytes{label}",
            sample.origin,
            print::count(sample.input_bytes)
        ));
    }
    Ok(())
}

/// Holds all shards against their manifest; returns how many bytes they have.
fn verify(path: &Path) -> Result<u64> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let Some((manifest, folder)) = ShardManifest::find(folder)? else {
        let message = format!("found no manifest of shards in {}", folder.display());
        return Err(Error::config("--verify", message).hint("inflight convert, which writes one"));
    };
    let bytes = AtomicU64::new(0);
    manifest.verify(&folder, &|done| {
        bytes.fetch_add(done, Ordering::Relaxed);
    })?;
    Ok(bytes.into_inner())
}

fn split(name: &'static str, source: &dyn Source) -> Result<Split> {
    let class_names = source.info().class_names.clone();
    let findings = match token_statistics(source)? {
        Some(tokens) => Findings::Tokens(tokens),
        None => Findings::Samples(statistics(source)?),
    };
    Ok(Split { split: name, class_names, findings })
}

fn show(split: &Split) {
    let statistics = match &split.findings {
        Findings::Tokens(tokens) => return show_tokens(split.split, tokens),
        Findings::Samples(statistics) => statistics,
    };
    let numbers = |values: &[f64]| {
        values.iter().map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(", ")
    };
    print::data(format!(
        "\n{}: {} samples of {} {} · mean {} · deviation {} · from {:.3} to {:.3}",
        split.split,
        print::count(statistics.samples),
        print::shape(&statistics.spec.input_shape),
        print::dtype(statistics.spec.input_dtype),
        numbers(&statistics.mean),
        numbers(&statistics.std),
        statistics.min,
        statistics.max,
    ));
    let most = statistics.label_counts.iter().copied().max().unwrap_or(0).max(1);
    let name = |class: usize| {
        split.class_names.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
    };
    let width = (0..statistics.label_counts.len()).map(|class| name(class).chars().count()).max();
    for (class, &count) in statistics.label_counts.iter().enumerate() {
        let bar = bar(count as f64 / most as f64);
        let (name, width) = (name(class), width.unwrap_or(0));
        print::data(format!("  {name:width$} {:>9} {bar}", print::count(count)));
    }
}

/// How the columns of a table become elements.
fn show_columns(fitted: &Fitted) {
    print::data("\ncolumns:");
    for Feature { column, encoding } in &fitted.features {
        let (words, missing) = match encoding {
            FeatureEncoding::Number { mean, std, missing } => {
                (format!("a number, mean {mean:.4}, deviation {std:.4}"), *missing)
            }
            FeatureEncoding::Buckets { edges, missing } => {
                (format!("a number in {} buckets", edges.len() + 1), *missing)
            }
            FeatureEncoding::Categories { values, shared, missing } => {
                let others = match shared {
                    0 => String::new(),
                    shared => format!(", others share {shared}"),
                };
                (format!("a category with {} values of its own{others}", values.len()), *missing)
            }
        };
        let missing = if missing { ", sometimes missing" } else { "" };
        print::data(format!("  {column}: {words}{missing}"));
    }
    print::data(format!("  {}: the target", fitted.target.column()));
}

fn show_tokens(split: &str, tokens: &TokenStatistics) {
    print::data(format!(
        "\n{split}: {} tokens · {} samples of {} · vocabulary {}, of which {} occur, the highest {}",
        print::count(tokens.tokens),
        print::count(tokens.samples),
        print::count(tokens.context),
        print::count(tokens.vocabulary),
        print::count(tokens.distinct),
        print::count(tokens.highest),
    ));
    match &tokens.excerpt {
        Some(text) => text.lines().for_each(|line| print::data(format!("  {line}"))),
        None => {
            let tokens: Vec<String> = tokens.first.iter().map(u32::to_string).collect();
            print::data(format!("  {} …", tokens.join(" ")));
        }
    }
}

/// A bar in eighths of a cell.
fn bar(share: f64) -> String {
    let eighths = (share * BAR_CELLS * 8.0).round() as usize;
    let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    "█".repeat(eighths / 8) + part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_their_length() {
        assert_eq!(bar(1.0), "█".repeat(40));
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(0.5 / 40.0), "▌");
    }
}
