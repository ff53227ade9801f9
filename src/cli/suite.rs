//! `inflight bench` without a part: the suite, its files of results, and what is made of them.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use inflight::bench::compare::{Comparison, Difference, compare};
use inflight::bench::page::page;
use inflight::bench::results::{Results, Workload};
use inflight::bench::suite::{self, News, Plan};
use inflight::durable::{replace_file, try_replace_file};
use inflight::{Error, Result};
use serde::Serialize;

use super::print;

/// What is made of results.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell whether results differ from the first of them, and by how much
    #[command(after_help = "\
A ratio above 1 is slower than the first. A workload is told to differ where the test of Mann and
Whitney finds it, at most one in twenty of such findings being chance, and its 95 % interval lies
beyond 3 %: two runs on one machine differ by as much.

Example:
  inflight bench compare before.json after.json")]
    Compare {
        /// Files of results; all others are held against the first
        #[arg(value_name = "FILE", num_args = 2.., required = true)]
        files: Vec<PathBuf>,
        /// Print a line of JSON for each comparison to stdout
        #[arg(long)]
        json: bool,
    },
    /// Make one page of results, with plots, that needs no network
    Report {
        /// Files of results
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// The page
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
    /// Tell whether results are fit for a public table; nothing is uploaded
    Submit {
        /// A file of results
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Single operations
    Kernels,
    /// Steps of models over batches in place
    Train,
    /// Preparing batches, and training with all of it
    Pipeline,
}

/// What was asked for.
pub struct Asked {
    pub device: String,
    pub quick: bool,
    pub json: bool,
    pub out: Vec<PathBuf>,
    pub only: Vec<Part>,
}

#[derive(Serialize)]
struct Row<'a> {
    event: &'static str,
    suite: &'a str,
    name: &'a str,
    median_s: f64,
    low_s: f64,
    high_s: f64,
    samples_per_s: Option<f64>,
    share: Option<f64>,
    rounds: usize,
}

#[derive(Serialize)]
struct Done<'a> {
    event: &'static str,
    device: &'a inflight::bench::results::Device,
    suite_version: u32,
    rounds: usize,
    rows: usize,
    left_out: usize,
    wall_s: f64,
}

/// Runs the suite.
pub fn run(asked: &Asked) -> Result<()> {
    // A path that cannot be written to should not cost five minutes.
    for path in &asked.out {
        let known = ["json", "csv", "md"];
        if !path.extension().is_some_and(|e| known.iter().any(|known| e == *known)) {
            let message = format!("found {}, expected .json, .csv or .md", path.display());
            return Err(Error::config("--out", message));
        }
        try_replace_file(path)?;
    }
    let parts = match &asked.only[..] {
        [] => suite::Part::ALL.to_vec(),
        only => only.iter().map(|&part| part.into()).collect(),
    };
    let plan = Plan { device: asked.device.clone(), parts, quick: asked.quick };
    let results = suite::run(&plan, |news| match news {
        News::Device(device) => {
            print::note(format!("device: {} ({}, {})", device.name, device.kind, device.backend));
            print::note("warming up");
        }
        News::Round(round, spent_s, seconds) => {
            print::note(format!("round {round}, {spent_s:.0} s of at most {seconds:.0} s"));
        }
    })?;
    // Before anything is printed, since the program ends where nobody reads that; what cannot be saved is printed as well.
    let saved = save_all(&results, &asked.out);
    if asked.json {
        print_json(&results)?
    } else {
        show(&results)
    }
    for left in &results.left_out {
        print::note(format!("left out: {}: {}", left.id, left.why));
    }
    if asked.out.is_empty() {
        print::note("nothing is kept; --out FILE.json keeps it, to compare with");
    }
    saved
}

/// Saves results to all of these files: one that cannot be written costs no other. The first error is what is returned.
fn save_all(results: &Results, paths: &[PathBuf]) -> Result<()> {
    let mut saved = Ok(());
    for path in paths {
        match results.save(path) {
            Ok(()) => print::note(format!("saved {}", path.display())),
            failed => saved = saved.and(failed),
        }
    }
    saved
}

impl From<Part> for suite::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Kernels => suite::Part::Kernels,
            Part::Train => suite::Part::Train,
            Part::Pipeline => suite::Part::Pipeline,
        }
    }
}

fn print_json(results: &Results) -> Result<()> {
    for workload in &results.workloads {
        let (suite, name) = workload.id.split_once('/').unwrap_or(("", &workload.id));
        print::json(&Row {
            event: "bench",
            suite,
            name,
            median_s: workload.time_s.median,
            low_s: workload.time_s.low,
            high_s: workload.time_s.high,
            samples_per_s: workload.per_s(),
            share: workload.share,
            rounds: workload.each_s.len(),
        })?;
    }
    print::json(&Done {
        event: "done",
        device: &results.device,
        suite_version: results.suite_version,
        rounds: results.rounds,
        rows: results.workloads.len(),
        left_out: results.left_out.len(),
        wall_s: results.wall_s,
    })
}

/// Columns for the name of a workload.
const NAME: usize = 46;
/// And where results are compared.
const COMPARED: usize = 41;

fn show(results: &Results) {
    print::data(format!(
        "{:<NAME$}{:>11}{:>8}  {:>13}",
        format!("suite {}, {} rounds", results.suite_version, results.rounds),
        "median",
        "± 95 %",
        "",
    ));
    for workload in &results.workloads {
        print::data(format!(
            "{:<NAME$}{:>11}{:>7.1}%  {:>13}",
            clipped(&workload.id, NAME),
            print::duration(workload.time_s.median),
            100.0 * workload.time_s.spread(),
            behind(workload),
        ));
    }
}

/// What stands behind a time: a rate, or a share of the best.
fn behind(workload: &Workload) -> String {
    match (workload.per_s(), workload.share) {
        (Some(per_s), _) => format!("{} /s", print::rate(per_s)),
        (None, Some(share)) => format!("{:.0} % of best", 100.0 * share),
        (None, None) => String::new(),
    }
}

/// The beginning of a name that is too long for its column.
fn clipped(name: &str, width: usize) -> String {
    if name.chars().count() < width {
        return name.into();
    }
    let kept: String = name.chars().take(width - 2).collect();
    format!("{kept}…")
}

/// Makes something of results.
pub fn after(command: Command) -> Result<()> {
    match command {
        Command::Compare { files, json } => compare_all(&files, json),
        Command::Report { files, out } => report(&files, &out),
        Command::Submit { file } => submit(&file),
    }
}

/// The names of files as people tell them apart: without folder and ending, unless two are the same then.
fn names(files: &[PathBuf]) -> Vec<String> {
    let stem = |path: &PathBuf| path.file_stem().map(|s| s.to_string_lossy().into_owned());
    let stems: Vec<String> = files.iter().map(|path| stem(path).unwrap_or_default()).collect();
    let twice = |name: &String| stems.iter().filter(|other| *other == name).count() > 1;
    let name = |(path, stem): (&PathBuf, &String)| match twice(stem) {
        true => path.display().to_string(),
        false => stem.clone(),
    };
    files.iter().zip(&stems).map(name).collect()
}

fn compare_all(files: &[PathBuf], json: bool) -> Result<()> {
    let all = files.iter().map(|path| Results::load(path)).collect::<Result<Vec<_>>>()?;
    let names = names(files);
    for (name, results) in names.iter().zip(&all).skip(1) {
        let found = compare((&names[0], &all[0]), (name, results))?;
        if json {
            print::json(&found)?;
        } else {
            show_comparison(&found);
        }
    }
    Ok(())
}

fn show_comparison(found: &Comparison) {
    print::data(format!(
        "time of {} by that of {}: above 1 it takes longer",
        found.other, found.base
    ));
    let line = |name: &str, ratio: &inflight::bench::stats::Estimate, p: String, told: &str| {
        let line = format!(
            "{:<COMPARED$}{:>6.3} [{:.3} .. {:.3}] {p:>7} {told}",
            clipped(name, COMPARED),
            ratio.median,
            ratio.low,
            ratio.high
        );
        line.trim_end().to_string()
    };
    let told = |difference| match difference {
        Difference::Same => "",
        Difference::Slower => "slower",
        Difference::Faster => "faster",
    };
    for row in &found.rows {
        let p = format!("p {:.3}", row.p);
        print::data(line(&row.id, &row.ratio, p, told(row.difference)));
    }
    let told = match found.verdict {
        Difference::Same => "the same",
        other => told(other),
    };
    print::data(line("all, round by round", &found.overall, String::new(), told));
    let count = found.rows.iter().filter(|row| row.difference != Difference::Same).count();
    print::data(match (count, found.verdict) {
        (0, Difference::Same) => "no significant difference".to_string(),
        _ => format!("{count} of {} workloads differ significantly", found.rows.len()),
    });
    found.notes.iter().for_each(|note| print::note(format!("note: {note}")));
    if !found.only_one.is_empty() {
        print::note(format!("in one of them only: {}", found.only_one.join(", ")));
    }
}

fn report(files: &[PathBuf], out: &Path) -> Result<()> {
    let loaded = files.iter().map(|path| Results::load(path)).collect::<Result<Vec<_>>>()?;
    let all: Vec<(String, Results)> = names(files).into_iter().zip(loaded).collect();
    replace_file(out, page(&all).as_bytes())?;
    print::note(format!("saved {}", out.display()));
    Ok(())
}

fn submit(file: &Path) -> Result<()> {
    let faults = Results::load(file)?.faults();
    if faults.is_empty() {
        print::note(format!("{} is fit for a public table; nothing was uploaded", file.display()));
        return Ok(());
    }
    let message = format!("is not fit for a public table: {}", faults.join("; "));
    Err(Error::config(file.display(), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_costs_no_other() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "").expect("writes");
        let paths = [path("a.csv"), path("file/b.json"), path("c.txt"), path("d.md")];
        let error = save_all(&Results::default(), &paths).expect_err("two of four").to_string();
        assert!(error.contains("cannot be created"), "the first one: {error}");
        let is_there = paths.each_ref().map(|path| path.exists());
        assert_eq!(is_there, [true, false, false, true]);
    }
}
