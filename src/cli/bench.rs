//! `inflight bench`: how fast this machine is, and how fast it could be.

use std::time::Instant;

use clap::ValueEnum;
use inflight::Result;
use inflight::bench::kernels::{self, Outcome};
use inflight::bench::{Bed, Ceilings, Options, Score};
use inflight::executor::DeviceInfo;
use inflight::nn::models;
use serde::Serialize;

use super::print;

/// Measure a device: its kernels and whole steps, beside what it can do at best
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure
    #[arg(value_enum)]
    suite: Suite,
    /// auto, cpu, gpu, gpu:K, or a part of an adapter's name (see `inflight devices`)
    #[arg(long, short, value_name = "D", default_value = "auto")]
    device: String,
    /// Models whose steps and kernels are measured, separated by commas [default: all that have a name]
    #[arg(long, short, value_name = "M", value_delimiter = ',')]
    model: Vec<String>,
    /// Samples a batch
    #[arg(long, short, value_name = "B", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
    /// Fewer repetitions and smaller sizes
    #[arg(long)]
    quick: bool,
    /// Print a line of JSON for each result to stdout
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Single operations, checked against their twins
    Kernels,
    /// Both
    All,
}

#[derive(Serialize)]
struct Line<'a, T: Serialize> {
    event: &'static str,
    #[serde(flatten)]
    row: &'a T,
}

/// The last line.
#[derive(Serialize)]
struct Done {
    event: &'static str,
    device: DeviceInfo,
    ceilings: Ceilings,
    rows: usize,
    left_out: usize,
    wall_s: f64,
}

/// Measures.
pub fn run(args: Args) -> Result<()> {
    let began = Instant::now();
    let named = models::NAMES.iter().map(|&name| name.to_string());
    let options = Options {
        quick: args.quick,
        models: if args.model.is_empty() { named.collect() } else { args.model.clone() },
        batch_size: args.batch_size as usize,
    };
    let mut bed = Bed::open(&args.device)?;
    let device = bed.device();
    print::note(format!("device: {} ({}, {})", device.name, device.kind, device.backend));
    let ceilings = bed.ceilings(options.quick)?;
    print::note(ceilings_line(&ceilings));
    let mut done = Done { event: "done", device, ceilings, rows: 0, left_out: 0, wall_s: 0.0 };
    measure_kernels(&mut bed, &options, &args, &mut done)?;
    done.wall_s = began.elapsed().as_secs_f64();
    if args.json {
        return print::json(&done);
    }
    print::note(format!("{} measured in {:.1} s", done.rows, done.wall_s));
    Ok(())
}

fn ceilings_line(ceilings: &Ceilings) -> String {
    let f16 = ceilings.f16_flops_per_s.map(|x| format!(", f16 {}", print::amount(x, "flop/s")));
    format!(
        "at best: copy {}, multiply-adds f32 {}{}",
        print::amount(ceilings.bytes_per_s, "B/s"),
        print::amount(ceilings.f32_flops_per_s, "flop/s"),
        f16.unwrap_or_default(),
    )
}

fn measure_kernels(bed: &mut Bed, options: &Options, args: &Args, done: &mut Done) -> Result<()> {
    if !args.json {
        print::data(heading());
    }
    let ceilings = done.ceilings;
    kernels::run(bed, &ceilings, options, |outcome| match outcome {
        Outcome::Timed(row) => {
            done.rows += 1;
            match args.json {
                true => print::json(&Line { event: "bench", row: &row }),
                false => {
                    print::data(table_line(&row.name, &row.score));
                    Ok(())
                }
            }
        }
        Outcome::LeftOut { name, why } => {
            done.left_out += 1;
            print::note(format!("{name} is left out: {why}"));
            Ok(())
        }
    })
}

fn heading() -> String {
    format!(
        "{:<56} {:>10} {:>10} {:>10} {:>14} {:>14} {:>7}",
        "", "median", "low", "high", "achieved", "at best", "share"
    )
}

fn table_line(name: &str, score: &Score) -> String {
    let unit = if score.unit == "byte/s" { "B/s" } else { score.unit };
    format!(
        "{name:<56} {:>10} {:>10} {:>10} {:>14} {:>14} {:>6.1}%",
        print::duration(score.lap.median_s),
        print::duration(score.lap.low_s),
        print::duration(score.lap.high_s),
        print::amount(score.achieved, unit),
        print::amount(score.ceiling, unit),
        100.0 * score.share,
    )
}
