//! `inflight completions` and `inflight man`: what is generated from the flags themselves, so that it is never out of date.

use std::io::Write;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use inflight::{Error, Result};

use super::{Cli, print};

/// Print the completions of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inflight completions bash > ~/.local/share/bash-completion/completions/inflight
  inflight completions zsh  > ~/.zfunc/_inflight        (with fpath+=~/.zfunc in .zshrc)
  inflight completions fish > ~/.config/fish/completions/inflight.fish")]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page, or write one for every command
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inflight man | man -l -                               read it
  inflight man --out ~/.local/share/man/man1            then: man inflight-train")]
pub struct Manual {
    /// A folder for the pages of all commands
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints completions.
pub fn completions(args: Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "inflight", &mut script);
    write_out(&script);
    Ok(())
}

/// Prints or writes manual pages.
pub fn manual(args: Manual) -> Result<()> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = args.out else {
        write_out(&page("inflight", command)?);
        return Ok(());
    };
    let unwritable =
        |e| Error::config("--out", format!("{} cannot be written", dir.display())).caused_by(e);
    std::fs::create_dir_all(&dir).map_err(unwritable)?;
    let mut written = 0;
    for (name, command) in with_subcommands("inflight".into(), command) {
        std::fs::write(dir.join(format!("{name}.1")), page(&name, command)?).map_err(unwritable)?;
        written += 1;
    }
    print::note(format!("{written} pages in {}", dir.display()));
    Ok(())
}

/// A command and all below it, each with the name of its page: `inflight-bench-compare`.
fn with_subcommands(name: String, command: clap::Command) -> Vec<(String, clap::Command)> {
    let below: Vec<clap::Command> =
        command.get_subcommands().filter(|below| below.get_name() != "help").cloned().collect();
    let mut all = vec![(name.clone(), command)];
    for below in below {
        all.extend(with_subcommands(format!("{name}-{}", below.get_name()), below));
    }
    all
}

fn page(name: &str, command: clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .title(name)
        .render(&mut page)
        .map_err(|e| Error::config("man", "the page cannot be made").caused_by(e))?;
    Ok(page)
}

/// To stdout; a reader that went away wants no more.
fn write_out(bytes: &[u8]) {
    let _ = std::io::stdout().write_all(bytes);
}
