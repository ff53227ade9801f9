//! A folder of very many tiny pictures: an epoch over them opens no file for longer than it reads it, and holds little
//! more than their names. A process of its own, since all its open files are counted. `benches/many_files.rs` takes a
//! million.

#[path = "common/many_files.rs"]
mod many_files;

use inflight::source::{OpenOptions, open};
use many_files::{epoch, open_files, write};

const FILES: usize = 20_000;

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: usize = text.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * 4096
}

#[cfg(target_os = "linux")]
#[test]
fn an_epoch_over_very_many_files_leaves_none_open_and_holds_their_names() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write(dir.path(), FILES);
    let (files_before, bytes_before) = (open_files(), resident_bytes());
    let path = dir.path().join("pictures").display().to_string();
    let train = open(&path, &OpenOptions::default()).expect("opens").train;
    assert_eq!(train.len(), FILES);
    assert_eq!(open_files(), files_before, "opening leaves no file open");
    let (samples, most_files) = epoch(train, 4);
    assert_eq!(samples, FILES);
    // One file a worker, with some to spare.
    assert!(most_files <= files_before + 8, "{most_files}, {files_before} before");
    assert_eq!(open_files(), files_before, "an epoch leaves no file open");
    // Names take some 20 bytes each; threads, slots and code that was not touched before take some megabytes.
    let grown = resident_bytes().saturating_sub(bytes_before);
    assert!(grown < 48 << 20, "{grown} bytes");
}
