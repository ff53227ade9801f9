//! `inflight report`: a page about a run.

use std::path::PathBuf;

use inflight::durable::replace_file;
use inflight::report::page::page;
use inflight::{Result, report};
use serde::Serialize;

use super::{print, runs};

/// Make a page about a run: its curves, its answers, its pipeline, and what held it up
///
/// The page is one file that needs no network. A run may be under way or cut off: the page says what is missing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder of a run [default: the newest one under runs/]
    #[arg(value_name = "RUN")]
    run: Option<PathBuf>,
    /// Where the page goes [default: report.html in the folder of the run]
    #[arg(long, short, value_name = "FILE.html")]
    out: Option<PathBuf>,
    /// Print what was written as a line of JSON to stdout
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Event {
    event: &'static str,
    run_dir: PathBuf,
    path: PathBuf,
    bytes: u64,
    /// What the page could not show.
    lacks: Vec<String>,
}

/// Makes the page.
pub fn run(args: Args) -> Result<()> {
    let run_dir = match args.run {
        Some(dir) => dir,
        None => runs::newest("anything", |_, _| true)?,
    };
    let report::page::Page { html, lacks } = page(&run_dir)?;
    let path = args.out.unwrap_or_else(|| run_dir.join("report.html"));
    replace_file(&path, html.as_bytes())?;
    let bytes = html.len() as u64;
    if args.json {
        return print::json(&Event { event: "report", run_dir, path, bytes, lacks });
    }
    lacks.iter().for_each(|lack| print::note(format!("not on the page: {lack}")));
    print::data(path.display());
    Ok(())
}
