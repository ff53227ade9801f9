//! `inflight checkpoint`: which checkpoints there are, whether they are whole, and what differs between two.

use std::path::{Path, PathBuf};

use inflight::train::checkpoint::{
    self, Difference, Differences, Listed, Unread, abandoned, diff, survey,
};
use inflight::{Error, Result};
use serde::Serialize;

use super::print;

/// Look at checkpoints: list them, verify them, compare two
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inflight checkpoint ls runs/NAME                       which there are, and which is the best
  inflight checkpoint verify runs/NAME                   is every byte of them as it was written?
  inflight checkpoint diff runs/A runs/B                 the newest of two runs, tensor by tensor
  inflight eval runs/NAME/checkpoints/best               how good is the best?")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the checkpoints of a run
    ///
    /// Those that it went back behind come last: they are no part of it any more, and are kept as step-N.abandoned until you
    /// remove them.
    Ls(Ls),
    /// Hold every file of checkpoints against its hash; exits with 6 if one is damaged or cannot be read
    Verify(Verify),
    /// Compare two checkpoints tensor by tensor
    Diff(Diff),
}

#[derive(Debug, clap::Args)]
struct Ls {
    /// The folder of a run, of its checkpoints, or of one of them
    #[arg(value_name = "RUN|CHECKPOINT")]
    path: PathBuf,
    /// Print a line of JSON for each to stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// Folders of runs, of their checkpoints, or of single ones
    #[arg(value_name = "RUN|CHECKPOINT", required = true)]
    paths: Vec<PathBuf>,
    /// Print a line of JSON for each checkpoint to stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Diff {
    /// A checkpoint, or a run, whose newest is taken
    #[arg(value_name = "A")]
    a: PathBuf,
    /// What it is compared with
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Print the differences as a line of JSON to stdout
    #[arg(long)]
    json: bool,
}

/// A checkpoint in a list.
#[derive(Serialize)]
struct Row<'a> {
    event: &'static str,
    path: &'a Path,
    step: Option<u64>,
    bytes: Option<u64>,
    seed: Option<u64>,
    version: Option<&'a str>,
    best: Option<checkpoint::Best>,
    /// Whether the run went back behind it.
    abandoned: bool,
    /// Why it cannot be used; of a list, as far as its manifest tells.
    error: Option<String>,
}

impl<'a> Row<'a> {
    fn new(event: &'static str, listed: &'a Listed, error: Option<&Error>) -> Self {
        let manifest = listed.manifest.as_ref().ok();
        Self {
            event,
            path: &listed.path,
            step: manifest.map(|manifest| manifest.step),
            bytes: listed.bytes(),
            seed: manifest.map(|manifest| manifest.seed),
            version: manifest.map(|manifest| manifest.version.as_str()),
            best: listed.best,
            abandoned: listed.is_abandoned(),
            error: error.map(ToString::to_string),
        }
    }

    fn line(&self) -> String {
        let step = self.step.map_or("?".into(), print::count);
        let bytes = self.bytes.map_or("?".into(), print::bytes);
        let best = self.best.map(|best| format!("  best: {} {:.4}", metric(&best), best.value));
        let error = self.error.as_ref().map(|error| format!("  {error}"));
        let (best, error) = (best.unwrap_or_default(), error.unwrap_or_default());
        let abandoned = if self.abandoned { "  abandoned" } else { "" };
        format!("{}  step {step}  {bytes}{best}{abandoned}{error}", self.path.display())
    }
}

fn metric(best: &checkpoint::Best) -> &'static str {
    match best.metric {
        checkpoint::Metric::ValLoss => "val_loss",
        checkpoint::Metric::ValAccuracy => "val_accuracy",
        checkpoint::Metric::Off => "off",
    }
}

/// Looks at checkpoints.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Ls(args) => list(&args),
        Command::Verify(args) => verify(&args),
        Command::Diff(args) => compare(&args),
    }
}

fn list(args: &Ls) -> Result<()> {
    // A run may have no others any more.
    let (found, abandoned) = (survey(&args.path), abandoned(&args.path)?);
    for listed in found.iter().flatten().chain(&abandoned) {
        let row = Row::new("checkpoint", listed, listed.manifest.as_ref().err());
        match args.json {
            true => print::json(&row)?,
            false => print::data(row.line()),
        }
    }
    found.map(drop)
}

fn verify(args: &Verify) -> Result<()> {
    let (mut checked, mut unread) = (0u64, Vec::new());
    for path in &args.paths {
        for listed in survey(path)? {
            let why = listed.verify().err();
            let row = Row::new("verify", &listed, why.as_ref().map(Unread::error));
            match (args.json, &why) {
                (true, _) => print::json(&row)?,
                (false, None) => print::data(format!("{}  whole", row.line())),
                (false, Some(_)) => print::data(row.line()),
            }
            checked += 1;
            unread.extend(why.map(|why| (listed.path.clone(), why)));
        }
    }
    let Some((first, _)) = unread.first() else { return Ok(()) };
    let message = format!("{} of {} checkpoints cannot be used", unread.len(), checked);
    let hint = match unread.iter().all(|(_, why)| matches!(why, Unread::Damaged(_))) {
        true => "removing them; --resume takes the newest that is whole",
        false => "what is said of each: not all of them are damaged",
    };
    Err(Error::checkpoint(first.display(), message).hint(hint))
}

#[derive(Serialize)]
struct Compared<'a> {
    event: &'static str,
    a: &'a Path,
    b: &'a Path,
    identical: bool,
    #[serde(flatten)]
    differences: &'a Differences,
}

fn compare(args: &Diff) -> Result<()> {
    let open = |path: &Path| -> Result<checkpoint::Checkpoint> {
        let found = checkpoint::find(path)?;
        super::runs::tell_damaged(&found.damaged);
        Ok(found.checkpoint)
    };
    let (a, b) = (open(&args.a)?, open(&args.b)?);
    let differences = diff(&a, &b);
    let identical = differences.tensors.is_empty();
    if args.json {
        let (a, b) = (a.path.as_path(), b.path.as_path());
        return print::json(&Compared {
            event: "diff",
            a,
            b,
            identical,
            differences: &differences,
        });
    }
    let Differences { steps, seeds, same, tensors } = &differences;
    for (name, path, step, seed) in
        [("a", &a.path, steps[0], seeds[0]), ("b", &b.path, steps[1], seeds[1])]
    {
        print::data(format!(
            "{name}: {}  step {}  seed {seed}",
            path.display(),
            print::count(step)
        ));
    }
    tensors.iter().for_each(|tensor| print::data(line(tensor)));
    print::data(format!(
        "{} tensors differ, {} are the same bit for bit",
        print::count(tensors.len()),
        print::count(*same)
    ));
    Ok(())
}

/// One tensor that differs.
fn line(tensor: &Difference) -> String {
    let Difference { file, name, a, b, values } = tensor;
    let place = format!("{file}: {name}");
    match (a, b, values) {
        (Some(kind), _, Some(values)) => format!(
            "{place}  {kind}  {} of {} values differ, by at most {:.3e}, relative {:.3e}",
            print::count(values.differing),
            print::count(values.of),
            values.abs_max,
            values.relative
        ),
        (Some(a), Some(b), None) => format!("{place}  {a} in a, {b} in b"),
        (Some(a), None, _) => format!("{place}  {a} in a only"),
        (None, Some(b), _) => format!("{place}  {b} in b only"),
        (None, None, _) => place,
    }
}
