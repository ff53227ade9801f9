//! `inflight bench`: how fast this machine is, and how fast it could be.

use std::time::Instant;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches, ValueEnum};
use inflight::batch::DType;
use inflight::bench::kernels::{self, Outcome};
use inflight::bench::{Bed, Ceilings, Options, Score, pipeline, train};
use inflight::executor::DeviceInfo;
use inflight::executor::Tune;
use inflight::nn::language::LanguageConfig;
use inflight::nn::models;
use inflight::source::stream::is_stream;
use inflight::source::{DataConfig, Encoding, Source};
use inflight::transform::{HorizontalFlip, RandomResizedCrop, TransformConfig};
use inflight::{Error, Result};
use serde::Serialize;

use super::flags::DataFlags;
use super::print;
use super::train::open_dataset;

/// Measure a device: its kernels and whole steps, beside what it can do at best
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  inflight bench --out here.json          the suite: the same work everywhere, at most five minutes
  inflight bench --quick --device cpu     at most one minute, on the processor
  inflight bench compare before.json after.json
  inflight bench report *.json --out page.html
  inflight bench submit here.json         is it fit for a public table, and if not, why
  inflight bench train --model resnet18 --batch-size 64     one part, with sizes of your own
  inflight bench pipeline --dataset photos/                 how fast these are prepared")]
pub struct Args {
    // First, since those that follow take their flags out of what was given.
    #[command(flatten)]
    unused: Unused,
    #[command(subcommand)]
    command: Option<super::suite::Command>,
    /// A part to measure with sizes of your own; without one, the suite, whose results can be compared
    #[arg(value_enum)]
    suite: Option<Suite>,
    /// For the suite: a file for the results, .json, .csv or .md; several times for several
    #[arg(long, short, value_name = "FILE")]
    out: Vec<std::path::PathBuf>,
    /// For the suite: only these of its parts
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_enum)]
    only: Vec<super::suite::Part>,
    /// auto, cpu, gpu, gpu:K, or a part of an adapter's name (see `inflight devices`)
    #[arg(long, short, value_name = "D", default_value = "auto")]
    device: String,
    /// Models whose steps and kernels are measured, separated by commas [default: all that have a name]
    #[arg(long, short, value_name = "M", value_delimiter = ',')]
    model: Vec<String>,
    /// Samples a batch
    #[arg(long, short, value_name = "B", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch_size: u32,
    /// f32, or f16 for mixed precision
    #[arg(long, value_name = "P", default_value = "f32")]
    precision: String,
    /// How much to tune on an adapter before measuring: off, fast (3 s) or full
    #[arg(long, value_name = "T", default_value = "fast")]
    tune: Tune,
    /// For pipeline: the data set that is prepared
    #[arg(long, value_name = "D")]
    dataset: Option<String>,
    #[command(flatten)]
    data: DataFlags,
    /// For pipeline: what is done to images [default: random-resized-crop,horizontal-flip for image files, else none]
    #[arg(long, value_name = "LIST")]
    transforms: Option<String>,
    /// For pipeline: preparing threads; 0 means one a core
    #[arg(long, value_name = "W", default_value_t = 0)]
    workers: usize,
    /// For pipeline: slots of the ring
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..))]
    slots: u8,
    /// For pipeline: passes over the samples
    #[arg(long, value_name = "E", default_value_t = 3)]
    epochs: u64,
    /// Fewer repetitions and smaller sizes
    #[arg(long)]
    quick: bool,
    /// Print a line of JSON for each result to stdout
    #[arg(long)]
    json: bool,
}

/// What the suite takes; its work is the same everywhere, whatever a part may be given.
const OF_SUITE: [&str; 5] = ["device", "quick", "json", "out", "only"];

/// The first flag among those given that the suite has no use for.
#[derive(Debug)]
struct Unused(Option<String>);

impl FromArgMatches for Unused {
    fn from_arg_matches(given: &ArgMatches) -> Result<Self, clap::Error> {
        let bench = <Args as clap::Args>::augment_args(Command::new("bench"));
        let mut others = bench.get_arguments().filter(|arg| {
            let id = arg.get_id().as_str();
            !OF_SUITE.contains(&id) && given.value_source(id) == Some(ValueSource::CommandLine)
        });
        Ok(Self(others.find_map(|arg| arg.get_long()).map(|flag| format!("--{flag}"))))
    }

    fn update_from_arg_matches(&mut self, given: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(given)?;
        Ok(())
    }
}

impl clap::Args for Unused {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Single operations, checked against their twins
    Kernels,
    /// Whole steps of models, samples in place
    Train,
    /// The preparation of batches alone, of --dataset
    Pipeline,
    /// Kernels and steps
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
    if let Some(command) = args.command {
        return super::suite::after(command);
    }
    let Some(suite) = args.suite else {
        if let Some(flag) = args.unused.0 {
            let message = "found with the suite, whose work is the same everywhere, expected with a part alone";
            return Err(
                Error::config(flag, message).hint("kernels, train, pipeline or all before it")
            );
        }
        let Args { device, quick, json, out, only, .. } = args;
        return super::suite::run(&super::suite::Asked { device, quick, json, out, only });
    };
    if !args.out.is_empty() || !args.only.is_empty() {
        let message = "found --out or --only with a part, expected them with the suite alone";
        return Err(Error::config("bench", message).hint("leaving out the part"));
    }
    if suite == Suite::Pipeline {
        return measure_pipeline(&args);
    }
    // Language models are measured where they are asked for: batches of 128 texts are more than most train with.
    let named = models::NAMES.iter().filter(|name| LanguageConfig::by_name(name).is_none());
    let named = named.map(|&name| name.to_string());
    let options = Options {
        quick: args.quick,
        models: if args.model.is_empty() { named.collect() } else { args.model.clone() },
        batch_size: args.batch_size as usize,
        precision: args.precision.clone(),
        tune: args.tune,
    };
    options.validate()?;
    let mut bed = Bed::open(&args.device)?;
    let device = bed.device();
    print::note(format!("device: {} ({}, {})", device.name, device.kind, device.backend));
    let ceilings = bed.ceilings(options.quick)?;
    print::note(ceilings_line(&ceilings));
    ceilings.keep(&device);
    let mut done = Done { event: "done", device, ceilings, rows: 0, left_out: 0, wall_s: 0.0 };
    if suite != Suite::Train {
        measure_kernels(&mut bed, &options, &args, &mut done)?;
    }
    if suite != Suite::Kernels {
        measure_steps(&bed, &options, &args, &mut done)?;
    }
    done.wall_s = began.elapsed().as_secs_f64();
    if args.json {
        return print::json(&done);
    }
    print::note(format!("{} measured in {:.1} s", done.rows, done.wall_s));
    Ok(())
}

fn ceilings_line(ceilings: &Ceilings) -> String {
    let more = |what, x: Option<f64>| {
        x.map_or(String::new(), |x| format!(", {what} {}", print::amount(x, "flop/s")))
    };
    format!(
        "at best: copy {}, multiply-adds f32 {}{}{}",
        print::amount(ceilings.bytes_per_s, "B/s"),
        print::amount(ceilings.f32_flops_per_s, "flop/s"),
        more("f16", ceilings.f16_flops_per_s),
        more("matrix units", ceilings.matrix_flops_per_s),
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

fn measure_steps(bed: &Bed, options: &Options, args: &Args, done: &mut Done) -> Result<()> {
    if !args.json {
        print::data(heading());
    }
    let ceilings = done.ceilings;
    train::run(bed, &ceilings, options, |row| {
        done.rows += 1;
        if args.json {
            return print::json(&Line { event: "bench", row: &row });
        }
        print::data(table_line(&row.name, &row.score));
        details(&row).into_iter().for_each(|line| print::data(format!("    {line}")));
        Ok(())
    })
}

fn measure_pipeline(args: &Args) -> Result<()> {
    let Some(dataset) = &args.dataset else {
        let message = "found none, expected the name or path of what to prepare";
        return Err(Error::config("--dataset", message));
    };
    // Opening it would take what comes, a queue's messages for one, before it is refused.
    if is_stream(dataset) {
        let message = "found a stream, whose samples would have to come several times, expected data of a known length";
        return Err(Error::config("--dataset", message).hint("a file or a folder"));
    }
    let mut data = DataConfig::default();
    args.data.apply(&mut data);
    let source = open_dataset(dataset, &data, None)?.train;
    let options = pipeline::Options {
        transforms: match &args.transforms {
            Some(list) => TransformConfig::parse_list("--transforms", list)?,
            None => usual_transforms(&*source),
        },
        workers: args.workers,
        batch_size: args.batch_size as usize,
        epochs: args.epochs,
        slots: args.slots.into(),
    };
    let row = pipeline::run(&source, &options)?;
    if args.json {
        print::json(&Line { event: "bench", row: &row })?;
        return print::json(&Line { event: "done", row: &row });
    }
    let unit = if row.images_per_s.is_some() { "images/s" } else { "samples/s" };
    let each: Vec<String> = row.samples_per_s_each.iter().map(|&x| print::rate(x)).collect();
    print::data(format!(
        "{}: {} {unit} with {} threads (each epoch: {})",
        row.name,
        print::rate(row.samples_per_s),
        row.workers,
        each.join(", "),
    ));
    if let (Some(one), Some(ceiling), Some(share)) =
        (row.one_thread_images_per_s, row.ceiling, row.share)
    {
        print::data(format!(
            "    decoding and resizing alone: {} on one thread, {} at best · share {}",
            print::rate(one),
            print::rate(ceiling),
            print::percent(share),
        ));
    }
    print::data(format!(
        "    threads: read {} · decode {} · augment {} · write {} · {} copied an image · peak memory {}",
        print::duration(row.read_s),
        print::duration(row.decode_s),
        print::duration(row.augment_s),
        print::duration(row.write_s),
        print::bytes(row.copied_bytes_per_image as u64),
        row.peak_bytes.map_or("unknown".into(), print::bytes),
    ));
    Ok(())
}

/// What training on images usually begins with; normalising is the device's.
fn usual_transforms(source: &dyn Source) -> Vec<TransformConfig> {
    if source.encoding() != Encoding::Image || source.spec().input_dtype != DType::U8 {
        return Vec::new();
    }
    vec![
        TransformConfig::RandomResizedCrop(RandomResizedCrop::default()),
        TransformConfig::HorizontalFlip(HorizontalFlip::default()),
    ]
}

/// What stands below a model's line.
fn details(row: &train::Row) -> Vec<String> {
    let mut lines = vec![format!(
        "{} steps/s, {} samples/s · floor: operations {}, bytes {} ({} a step)",
        print::rate(row.steps_per_s),
        print::rate(row.samples_per_s),
        print::duration(row.compute_floor_s),
        print::duration(row.bandwidth_floor_s),
        print::bytes(row.score.cost.bytes),
    )];
    if let Some(launch) = &row.launch {
        let idle = row.idle_share.map(|share| format!(" · device idle {}", print::percent(share)));
        lines.push(format!(
            "{} dispatches, {} barriers · on the host: record {}, submit {}{}",
            launch.dispatches,
            launch.barriers,
            print::duration(launch.record_s),
            print::duration(launch.submit_s),
            idle.unwrap_or_default(),
        ));
    }
    let first = &row.first_step;
    lines.push(format!(
        "first step after {} (adapter {}, plan {}, tune {}, compile {}, result {})",
        print::duration(first.total_s),
        print::duration(first.adapter_s),
        print::duration(first.plan_s),
        print::duration(first.tune_s),
        print::duration(first.compile_s),
        print::duration(first.result_s),
    ));
    lines
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
