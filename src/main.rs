//! The command line of `inflight`: parse, run, print the error, exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::print::error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}
