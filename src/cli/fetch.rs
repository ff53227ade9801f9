//! `inflight fetch`: brings a data set onto this machine.

use inflight::Result;
use inflight::source::fetch::default_cache_dir;
use inflight::source::{self, manifest};

use super::print;
use super::progress::FetchProgress;

/// Bring a data set onto this machine
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A data set's name; without it, the known names are listed
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Fetches a data set, or lists those that are known.
pub fn run(args: Args) -> Result<()> {
    let Some(name) = args.name else {
        for name in manifest::names() {
            if let Some(manifest) = manifest::by_name(name)? {
                print::data(format!("{name}: {} ({})", manifest.description, manifest.licence));
            }
        }
        return Ok(());
    };
    let progress = FetchProgress::new();
    let folder = source::fetch(&name, &default_cache_dir()?, &|fetching| progress.update(fetching));
    progress.finish();
    print::data(folder?.display());
    Ok(())
}
