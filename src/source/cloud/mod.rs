//! Data in S3, GCS, Azure and behind HTTP: fetched into a cache on this machine before a run begins, then read as any
//! files are.
//!
//! The objects of a URL must fit into the cache together. So every format that can be read from files can be read from
//! afar, in any order, at the speed of the disk, and no network stands between a run and its next batch.

mod address;
mod cache;
mod download;
mod listing;

use std::path::PathBuf;

use address::Address;
use cache::Cache;
use tokio::runtime::{Builder, Runtime};

use super::open::{Dataset, OpenOptions};
use crate::error::{Error, Result};
use crate::source::fetch::default_cache_dir;

/// Threads that wait for servers and write what comes: a network is slower than either alone.
const THREADS: usize = 2;

/// Bytes of the cache where nothing else is said.
const CACHE_BYTES: u64 = 32 << 30;

/// Fetches what `url` names, where it is not in the cache as it is there; the file or folder on this machine to open
/// in its place.
///
/// # Errors
/// When the URL is wrong, a server refuses or does not answer, an object changes meanwhile, or the cache is too small.
pub(super) fn bring(url: &str, options: &OpenOptions<'_>) -> Result<PathBuf> {
    let data = options.data();
    let dir = match (&data.cloud_cache_dir, options.cache_dir) {
        (Some(dir), _) => dir.clone(),
        (None, Some(dir)) => dir.join("cloud"),
        (None, None) => default_cache_dir()?.join("cloud"),
    };
    let mut cache = Cache::open(&dir, url, data.cloud_cache_bytes.unwrap_or(CACHE_BYTES))?;
    if options.offline {
        return cache.complete().ok_or_else(|| {
            Error::data(Address::shown(url), "is not on this machine as a whole")
                .hint("opening it once with a network")
        });
    }
    let address = Address::parse(url)?;
    let runtime = runtime()?;
    let objects = runtime.block_on(listing::list(&address))?;
    let missing = cache.prepare(objects)?;
    let on_progress = options.on_progress;
    let fetched = download::fetch(&runtime, &address, &cache, missing, on_progress);
    // Ends what is still under way: no request outlives this call.
    runtime.shutdown_background();
    fetched?;
    cache.finish()
}

/// Opens what [`bring`] brought; the data set keeps the name of its URL.
pub(super) fn open(
    url: &str,
    options: &OpenOptions<'_>,
    open_path: impl FnOnce(&std::path::Path) -> Result<Dataset>,
) -> Result<Dataset> {
    let path = bring(url, options)?;
    Ok(Dataset { name: Address::shown(url), ..open_path(&path)? })
}

fn runtime() -> Result<Runtime> {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let number = AtomicUsize::new(0);
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(THREADS)
        .thread_name_fn(move || format!("cloud-{}", number.fetch_add(1, Ordering::Relaxed)))
        .enable_all()
        .build()
        .map_err(|e| Error::data("cloud", "its threads cannot be started").caused_by(e))
}
