//! The command line: flags become configuration, one file a command. The only place that knows flags or
//! prints: people read stderr, data goes to stdout.

mod bench;
mod checkpoint;
mod convert;
#[cfg(feature = "tui")]
mod dashboard;
mod devices;
mod doctor;
mod eval;
mod fetch;
mod flags;
mod generate;
mod inspect;
mod interrupt;
mod language;
mod manual;
mod model;
mod plan;
mod predict;
mod predict_rows;
pub mod print;
mod progress;
mod report;
mod resumed;
mod runs;
mod samples;
mod sampling;
#[cfg(feature = "tui")]
mod screen;
#[cfg(feature = "serve")]
mod serve;
mod stalls;
mod suite;
mod tokenize;
mod train;
mod verify;
mod view;

use clap::{Parser, Subcommand};
use inflight::Result;

/// Trains neural networks on any GPU, with no CUDA and no Python, through a pipeline that never waits.
#[derive(Debug, Parser)]
#[command(name = "inflight", version, max_term_width = 100)]
#[command(after_help = "\
First steps:
  inflight doctor                              is this machine fit, and what should be fixed?
  inflight train fashion-mnist-10k             train on pictures that come along
  inflight train photos/ --model resnet18      on folders of pictures, one for each class
  inflight train table.csv --target price      on a table
  inflight eval runs/NAME                      how good is it?
  inflight predict --run runs/NAME boot.jpg    and what does it say?
  inflight COMMAND --help                      all flags, with examples

Exit codes: 0 done · 2 usage or config · 3 data · 4 device · 5 training diverged · 6 checkpoint ·
75 stopped by a signal, or as nobody reads its data, after a checkpoint was saved; run again with --resume")]
pub struct Cli {
    /// How lines for people are written to stderr
    #[arg(long, global = true, value_name = "F", value_enum, default_value_t)]
    log_format: print::LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model on a data set
    Train(Box<train::Args>),
    /// Evaluate trained weights on a data set
    Eval(eval::Args),
    /// Tell what pictures show, or what the rows of a table are, with a trained model
    Predict(predict::Args),
    /// Continue texts with a language model
    Generate(Box<generate::Args>),
    /// Serve a language model over HTTP
    #[cfg(feature = "serve")]
    Serve(Box<serve::Args>),
    /// Measure a device: its kernels and whole steps, beside what it can do at best
    Bench(bench::Args),
    /// Measure what reading, preparing and uploading add to a training's steps
    Stalls(Box<stalls::Args>),
    /// Look at checkpoints: list them, verify them, compare two
    Checkpoint(checkpoint::Args),
    /// Make a page about a run
    Report(report::Args),
    /// List the devices of this machine
    Devices(devices::Args),
    /// Show what a data set holds
    Inspect(inspect::Args),
    /// Write a data set to shards that are read from the first byte to the last
    Convert(convert::Args),
    /// Turn text files into tokens for training
    Tokenize(tokenize::Args),
    /// Bring a data set onto this machine
    Fetch(fetch::Args),
    /// Show what a model consists of
    Model(model::Args),
    /// Check this machine: device, driver, limits, disk, memory, and say what to fix
    Doctor(doctor::Args),
    /// Print the completions of a shell
    Completions(manual::Completions),
    /// Print the manual page, or write one for every command
    Man(manual::Manual),
}

/// Runs a command.
pub fn run(cli: Cli) -> Result<()> {
    quiet_desktop_layer();
    cli.log_format.apply();
    match cli.command {
        Command::Train(args) => train::run(*args),
        Command::Eval(args) => eval::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Generate(args) => generate::run(*args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(*args),
        Command::Bench(args) => bench::run(args),
        Command::Stalls(args) => stalls::run(*args),
        Command::Checkpoint(args) => checkpoint::run(args),
        Command::Report(args) => report::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Fetch(args) => fetch::run(args),
        Command::Model(args) => model::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::manual(args),
    }
}

/// Without a desktop, the Mesa layer that sorts adapters for one complains on stderr, as if something were
/// wrong. It does nothing else there.
fn quiet_desktop_layer() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread has been started yet, so none can be reading the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") }
    }
}
