//! What is kept between runs makes room: of folders that can be made again, the oldest go.

use std::fs::{DirEntry, Metadata};
use std::path::Path;
use std::time::SystemTime;

/// Removes folders of `root`, the oldest first, until those that are left take at most `bytes_max`; how much that is.
/// Folders for which `used` has no time are left alone and not counted; those that are not `free`, or cannot be removed,
/// stay.
pub(crate) fn remove_oldest(
    root: &Path,
    bytes_max: u64,
    used: impl Fn(&Path) -> Option<SystemTime>,
    free: impl Fn(&Path) -> bool,
) -> u64 {
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
        if free(&dir) && std::fs::remove_dir_all(&dir).is_ok() {
            total -= bytes;
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
