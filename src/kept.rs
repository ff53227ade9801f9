//! What is kept between runs makes room: of folders that can be made again, the oldest go.

use std::fs::{DirEntry, Metadata};
use std::path::Path;
use std::time::SystemTime;

use crate::durable;

/// Ends the name of a folder that is being removed: half of one is not to be found.
const GONE: &str = ".gone";

/// Removes folders of `root`, the oldest first, until those that are left take at most `bytes_max`; how much that is.
/// Folders for which `used` has no time are left alone and not counted; those that are not `free`, or cannot be removed,
/// stay. What an interrupted call left of a folder goes first.
pub(crate) fn remove_oldest(
    root: &Path,
    bytes_max: u64,
    used: impl Fn(&Path) -> Option<SystemTime>,
    free: impl Fn(&Path) -> bool,
) -> u64 {
    for left in entries(root) {
        if left.file_name().as_encoded_bytes().ends_with(GONE.as_bytes()) {
            let _ = durable::remove(&left.path());
        }
    }
    let kept = |entry: DirEntry| {
        let dir = entry.path();
        let bytes: u64 = metadata(&dir).map(|file| file.len()).sum();
        Some((used(&dir)?, bytes, dir))
    };
    let mut folders: Vec<_> = entries(root).filter_map(kept).collect();
    folders.sort();
    let mut total: u64 = folders.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, dir) in folders {
        if total <= bytes_max {
            break;
        }
        let mut gone = dir.clone().into_os_string();
        gone.push(GONE);
        if free(&dir) && durable::rename(&dir, gone.as_ref()).is_ok() {
            total -= bytes;
            // If this fails, the next call tries again.
            let _ = durable::remove(gone.as_ref());
        }
    }
    total
}

/// Of the files in a folder, as far as they can be read.
pub(crate) fn metadata(dir: &Path) -> impl Iterator<Item = Metadata> {
    entries(dir).filter_map(|file| file.metadata().ok())
}

fn entries(dir: &Path) -> impl Iterator<Item = DirEntry> {
    std::fs::read_dir(dir).into_iter().flatten().flatten()
}
