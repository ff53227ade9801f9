//! `inflight inspect`: what a data set holds.

use std::path::PathBuf;

use inflight::source::{Source, Statistics, Viewer, contact_sheet, statistics, transformed_sheet};
use inflight::transform::{self, TransformConfig};
use inflight::{Error, Result, RunConfig};
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

/// A sample and its draws on a sheet of transformed ones.
const DRAWN_COLUMNS: usize = 9;

/// Cells of the longest bar of a histogram.
const BAR_CELLS: f64 = 40.0;

#[derive(Serialize)]
struct Event {
    event: &'static str,
    dataset: String,
    path: PathBuf,
    splits: Vec<Split>,
}

#[derive(Serialize)]
struct Split {
    split: &'static str,
    class_names: Vec<String>,
    #[serde(flatten)]
    statistics: Statistics,
}

/// Inspects a data set.
pub fn run(args: Args) -> Result<()> {
    let mut config = RunConfig::default();
    args.data.apply(&mut config.data);
    if let Some(list) = &args.transforms {
        config.transforms = TransformConfig::parse_list("--transforms", list)?;
        config.settle();
    }
    config.validate()?;
    let dataset = open_dataset(&args.dataset, &config.data)?;
    transform::check(&config.transforms, &*dataset.train)?;
    let mut splits = vec![split("train", &*dataset.train)?];
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
        let (dataset, path) = (dataset.name, dataset.path);
        return print::json(&Event { event: "inspect", dataset, path, splits });
    }
    print::data(format!("{} ({})", dataset.name, dataset.path.display()));
    splits.iter().for_each(show);
    if let Some(path) = &args.sheet {
        print::note(format!("contact sheet: {}", path.display()));
    }
    Ok(())
}

fn split(name: &'static str, source: &dyn Source) -> Result<Split> {
    let class_names = source.info().class_names.clone();
    Ok(Split { split: name, class_names, statistics: statistics(source)? })
}

fn show(split: &Split) {
    let statistics = &split.statistics;
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
