//! How the tests of the command line call the program.

use std::path::Path;
use std::process::{Command, Stdio};

/// The program with the words of `line`, in `dir`. Nothing may be fetched, or found in the cache of whoever runs the tests.
pub fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflight"));
    command.args(line.split_whitespace()).current_dir(dir);
    command.env("INFLIGHT_DATA", dir.join("data")).stdin(Stdio::null());
    command
}
