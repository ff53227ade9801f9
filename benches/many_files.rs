//! A million tiny pictures in a folder: how long opening it takes, how many samples a second an epoch prepares, and
//! what of memory and files it needs. FILES sets another number, and MANY_FILES_DIR a folder that is kept for the next
//! time.

#[path = "../tests/common/many_files.rs"]
mod many_files;

use std::path::PathBuf;
use std::time::Instant;

use inflight::report::memory::peak_memory_bytes;
use inflight::source::{OpenOptions, open};
use many_files::{epoch, open_files, write};

fn main() {
    let files = std::env::var("FILES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let kept = std::env::var_os("MANY_FILES_DIR").map(PathBuf::from);
    let root = kept.unwrap_or_else(|| temporary.path().to_path_buf());
    if !root.join("pictures").exists() {
        write(&root, files);
    }
    let megabytes = || peak_memory_bytes().map_or(f64::NAN, |bytes| bytes as f64 / 1e6);
    let (files_before, megabytes_before) = (open_files(), megabytes());

    let began = Instant::now();
    let path = root.join("pictures").display().to_string();
    let train = open(&path, &OpenOptions::default()).expect("opens").train;
    let (open_s, len) = (began.elapsed().as_secs_f64(), train.len());
    println!(
        "open: {len} files in {open_s:.3} s, peak memory {:.1} MB, {megabytes_before:.1} before",
        megabytes()
    );
    let began = Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (samples, most_files) = epoch(train, workers);
    let epoch_s = began.elapsed().as_secs_f64();
    println!(
        "epoch: {samples} samples in {epoch_s:.1} s, {:.0} samples/s, peak memory {:.1} MB, open files {files_before} \
         before, at most {most_files}, {} after",
        samples as f64 / epoch_s,
        megabytes(),
        open_files(),
    );
}
