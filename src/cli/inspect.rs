//! `inflight inspect`: what a data set holds.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use inflight::source::shard_manifest::ShardManifest;
use inflight::source::tokens::{TokenStatistics, token_statistics};
use inflight::source::{DataConfig, Source, Statistics, contact_sheet, statistics};
use inflight::{Error, Result};
use serde::Serialize;

use super::flags::DataFlags;
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
    /// Print the findings as a line of JSON to stdout
    #[arg(long)]
    json: bool,
}

/// Samples of each class on a contact sheet.
const SHEET_COLUMNS: usize = 16;

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
    let mut data = DataConfig::default();
    args.data.apply(&mut data);
    // Each token is looked at once, however samples are cut for training.
    data.stride = None;
    let dataset = open_dataset(&args.dataset, &data)?;
    let verified = if args.verify { Some(verify(&dataset.path)?) } else { None };
    let mut splits = vec![split("train", &*dataset.train)?];
    if let Some(validation) = &dataset.validation {
        splits.push(split("val", &**validation)?);
    }
    if let Some(test) = &dataset.test {
        splits.push(split("test", &**test)?);
    }
    if let Some(path) = &args.sheet {
        contact_sheet(&*dataset.train, SHEET_COLUMNS)?.save(path).map_err(|e| {
            Error::config("--sheet", format!("{} cannot be written", path.display())).caused_by(e)
        })?;
    }
    if args.json {
        let (dataset, path) = (dataset.name, dataset.path);
        let event = Event { event: "inspect", dataset, path, verified_bytes: verified, splits };
        return print::json(&event);
    }
    if let Some(bytes) = verified {
        print::note(format!("{} of shards are as their manifest says", print::bytes(bytes)));
    }
    print::data(format!("{} ({})", dataset.name, dataset.path.display()));
    splits.iter().for_each(show);
    if let Some(path) = &args.sheet {
        print::note(format!("contact sheet: {}", path.display()));
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
