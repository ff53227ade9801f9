//! What is kept between runs makes room: of folders that can be made again, the oldest go.

use std::fs::{DirEntry, File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::durable::{self, Temporary};
use crate::error::Result;

/// Ends the name of a folder that is being removed: half of one is not to be found.
const GONE: &str = ".gone";

/// In a folder that is being made: held by whoever makes it, so that it is known when nobody does any more.
const MAKING: &str = ".making";

/// A folder that is being made under another name, and goes again where it is not finished.
pub(crate) struct Unfinished {
    /// The name it is to have.
    dir: PathBuf,
    folder: Temporary,
    lock: File,
}

impl Unfinished {
    /// Begins the folder `dir`.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn begin(dir: &Path) -> Result<Self> {
        durable::create_folders(durable::parent(dir))?;
        let mut name = dir.as_os_str().to_os_string();
        name.push(format!(".tmp-{}", std::process::id()));
        let folder = Temporary::claim(name.into())?;
        durable::create_folders(folder.path())?;
        let path = folder.path().join(MAKING);
        let cannot = |cause| durable::io_error(&path, "cannot be made", cause);
        let lock = File::create(&path).map_err(cannot)?;
        // Where there are no locks it stays, whatever becomes of it.
        let _ = lock.try_lock();
        Ok(Self { dir: dir.to_path_buf(), folder, lock })
    }

    /// Where it is as long as it is not finished.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives it its name.
    pub fn finish(self) -> std::io::Result<()> {
        let Self { dir, folder, lock } = self;
        std::fs::remove_file(folder.path().join(MAKING))?;
        drop(lock);
        durable::rename(folder.path(), &dir)
    }

    /// Whether `dir` is one that somebody began and nobody finishes any more.
    fn is_left(dir: &Path) -> bool {
        File::open(dir.join(MAKING)).is_ok_and(|lock| lock.try_lock().is_ok())
    }
}

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
        let is_going = left.file_name().as_encoded_bytes().ends_with(GONE.as_bytes());
        if is_going || Unfinished::is_left(&left.path()) {
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
