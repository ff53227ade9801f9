//! `inflight stalls`: what each stage costs a training, by leaving stages out one after the other.

use inflight::Result;
use inflight::bench::stalls::{self, Options, Report, Timed};
use inflight::bench::stats::Estimate;
use inflight::config::RunConfig;
use serde::Serialize;

use super::flags::Flags;
use super::{print, train};

/// Measure what reading, preparing and uploading add to a training's steps
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inflight stalls photos/ --model resnet18          where do a step's milliseconds go?
  inflight stalls photos/ --model resnet18 --workers 1 --json > stalls.jsonl

A stall near 0 is hidden behind computing. The largest one is what to work on:
  fetch       a faster disk, --readers, --cache ram, or shards (inflight convert)
  prepare     --workers, --cache ram for images, cheaper --transforms
  upload      smaller samples (--image-size), --slots
  contention  cores or memory that computing and preparing share")]
pub struct Args {
    /// A data set's name, or a path
    #[arg(value_name = "DATASET")]
    dataset: String,
    #[command(flatten)]
    flags: Flags,
    /// Rounds, each of which times everything once
    #[arg(long, value_name = "N", default_value_t = stalls::ROUNDS_MIN)]
    repeats: usize,
    /// Seconds for which each thing is timed in a round
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
    /// Print the report as a line of JSON to stdout
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

/// Measures.
pub fn run(args: Args) -> Result<()> {
    let mut config = RunConfig::default();
    args.flags.apply(&mut config)?;
    config.dataset = Some(train::absolute(&args.dataset)?);
    config.validate()?;
    let dataset = train::open(&config, None)?;
    let model = config.model.build(dataset.train.spec())?;
    let options = Options { rounds: args.repeats, seconds: args.seconds.clamp(0.05, 600.0) };
    let rounds = options.rounds;
    let done = |round: usize| print::note(format!("round {round} of {rounds}"));
    let report = stalls::run(dataset.train, model, &config, &options, done)?;
    if args.json {
        return print::json(&Line { event: "stalls", report: &report });
    }
    show(&report);
    Ok(())
}

fn show(report: &Report) {
    let device = &report.device;
    print::data(format!(
        "{} · {} ({})\nbatch {} · workers {} · slots {} · {} rounds; median [95 % interval]",
        report.dataset,
        device.name,
        device.kind,
        report.batch_size,
        report.workers,
        report.slots,
        report.rounds,
    ));
    let section = |title: &str, timed: &[Timed]| {
        print::data(format!("\n{title}"));
        for row in timed {
            print::data(format!("  {:<26}{}", row.name, interval(&row.time_s)));
        }
    };
    section("a step", &report.steps);
    section("stages alone, a batch", &report.alone);
    print::data("\nstalls, a step");
    for stall in &report.stalls {
        print::data(format!(
            "  {:<26}{}{:>8.1} %",
            stall.name,
            interval(&stall.time_s),
            100.0 * stall.share,
        ));
    }
    print::data(format!("\n  {:<26}{}", "one after the other", interval(&report.serial_s)));
    match &report.overlap {
        Some(overlap) => print::data(format!(
            "overlap efficiency {:.2} [{:.2} .. {:.2}]: of what {} could hide",
            overlap.median, overlap.low, overlap.high, report.slowest,
        )),
        None => print::data(format!("nothing to overlap: {} takes all there is", report.slowest)),
    }
    report.notes.iter().for_each(|note| print::note(format!("note: {note}")));
}

/// `  1.25 ms  [  1.20 ms ..   1.31 ms]`.
fn interval(time: &Estimate) -> String {
    let ms = |s: f64| format!("{:.3}", 1e3 * s);
    format!("{:>10} ms  [{:>9} .. {:>9}]", ms(time.median), ms(time.low), ms(time.high))
}
