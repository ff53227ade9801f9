//! `inflight convert`: a data set to shards.

use std::path::PathBuf;
use std::time::Instant;

use inflight::convert::{self, Config, ShardSize, Summary};
use inflight::source::DataConfig;
use inflight::{Error, Result};
use serde::Serialize;

use super::print;
use super::progress::ConvertProgress;
use super::train::open_dataset;

/// Write a data set to shards that are read from the first byte to the last
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A data set's name or path
    #[arg(value_name = "SRC")]
    source: String,
    /// Folder of the shards: a new one, or one where the same conversion was interrupted
    #[arg(value_name = "DST")]
    out: PathBuf,
    /// webdataset (tar archives) or parquet [default: webdataset]
    #[arg(long, value_name = "NAME")]
    format: Option<String>,
    /// About how large a shard is [default: 134217728]
    #[arg(long, value_name = "BYTES", conflicts_with = "samples_per_shard")]
    shard_size: Option<u64>,
    /// Samples of a shard, instead of its size
    #[arg(long, value_name = "N")]
    samples_per_shard: Option<usize>,
    /// Write the samples in a random order, drawn once
    #[arg(long)]
    shuffle: bool,
    /// Seed of that order [default: 0]
    #[arg(long, value_name = "S", requires = "shuffle")]
    seed: Option<u64>,
    /// Threads; 0 means one a core [default: 0]
    #[arg(long, value_name = "W")]
    workers: Option<usize>,
    /// Number of classes, for files that do not say
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// The column of a table that is to be predicted
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Whether the first row of a table names its columns [default: told by its looks]
    #[arg(long, value_name = "BOOL")]
    header: Option<bool>,
    /// The folder that paths in a list of images are relative to [default: that of the list]
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Print what was done as a line of JSON to stdout
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Event {
    event: &'static str,
    dir: PathBuf,
    #[serde(flatten)]
    summary: Summary,
    convert_s: f64,
}

/// Converts a data set.
pub fn run(args: Args) -> Result<()> {
    let data = DataConfig {
        classes: args.classes,
        target: args.target.clone(),
        header: args.header,
        image_root: args.image_root.clone(),
        ..Default::default()
    };
    let config = config(&args)?;
    let dataset = open_dataset(&args.source, &data, None)?;
    let began = Instant::now();
    let progress = ConvertProgress::new();
    let summary =
        convert::convert(&dataset, &args.out, &config, &|done, total| progress.update(done, total));
    progress.finish();
    let summary = summary?;
    let convert_s = began.elapsed().as_secs_f64();
    print::note(line(&summary, convert_s));
    if args.json {
        return print::json(&Event { event: "done", dir: args.out, summary, convert_s });
    }
    print::data(args.out.display());
    Ok(())
}

fn config(args: &Args) -> Result<Config> {
    let mut config = Config::default();
    if let Some(name) = &args.format {
        config.format = name.parse().map_err(|message| Error::config("--format", message))?;
    }
    match (args.shard_size, args.samples_per_shard) {
        (Some(0), _) => return Err(Error::config("--shard-size", "found 0, expected at least 1")),
        (_, Some(0)) => {
            return Err(Error::config("--samples-per-shard", "found 0, expected at least 1"));
        }
        (Some(bytes), _) => config.size = ShardSize::Bytes(bytes),
        (_, Some(samples)) => config.size = ShardSize::Samples(samples),
        _ => {}
    }
    config.shuffle_seed = args.shuffle.then(|| args.seed.unwrap_or(0));
    config.workers = args.workers.unwrap_or(0);
    Ok(config)
}

fn line(summary: &Summary, seconds: f64) -> String {
    let Summary { samples, shards, kept, bytes } = *summary;
    let kept = match kept {
        0 => String::new(),
        kept => format!(", {} of them there before", print::count(kept)),
    };
    let noun = if shards == 1 { "shard" } else { "shards" };
    format!(
        "{} samples in {} {noun}{kept} · {} in {}",
        print::count(samples),
        print::count(shards),
        print::bytes(bytes),
        print::duration(seconds)
    )
}
