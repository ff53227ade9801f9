//! What is kept between runs makes room: of folders that can be made again, the oldest go.

use std::fs::{DirEntry, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::durable::{self, Temporary};
use crate::error::Result;
use crate::lock::{self, Lock};

/// Ends the name of a folder that is being removed: half of one is not to be found.
const GONE: &str = ".gone";

/// In a folder that is being made: held by whoever makes it, so that it is known when nobody does any more.
const MAKING: &str = ".making";

/// Beside the folders: held for moments, while one is begun or finished, or what is left of others is removed.
const ORDER: &str = ".lock";

/// A folder that is being made under another name, and goes again where it is not finished.
pub(crate) struct Unfinished {
    /// The name it is to have.
    dir: PathBuf,
    folder: Temporary,
    /// Nobody else can have it: this process made the folder.
    making: Option<Lock>,
}

impl Unfinished {
    /// Begins the folder `dir`.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn begin(dir: &Path) -> Result<Self> {
        let cannot = |path: &Path, cause| durable::io_error(path, "cannot be made", cause);
        let root = durable::parent(dir);
        durable::create_folders(root)?;
        let _order = order(root).map_err(|cause| cannot(&root.join(ORDER), cause))?;
        let folder = Temporary::beside(dir);
        durable::create_folders(folder.path())?;
        let making = folder.path().join(MAKING);
        let making = Lock::hold(&making).map_err(|cause| cannot(&making, cause))?;
        Ok(Self { dir: dir.to_path_buf(), folder, making })
    }

    /// Where it is as long as it is not finished.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives it its name. Until what is returned is dropped, nobody removes it.
    pub fn finish(self) -> std::io::Result<Option<Lock>> {
        let Self { dir, folder, making } = self;
        let order = order(durable::parent(&dir))?;
        std::fs::remove_file(folder.path().join(MAKING))?;
        drop(making);
        durable::rename(folder.path(), &dir)?;
        Ok(order)
    }

    /// Whether `dir` is one that somebody began and nobody finishes any more; `ordered` if nobody begins or finishes one
    /// meanwhile.
    fn is_left(dir: &Path, ordered: bool) -> bool {
        let making = dir.join(MAKING);
        lock::is_free(&making) || (ordered && durable::is_temporary(dir) && !making.exists())
    }
}

/// Keeps folders of `root` from being begun, finished and removed, which is to be for moments alone: who wants to use one
/// has the time to say so.
pub(crate) fn order(root: &Path) -> std::io::Result<Option<Lock>> {
    Lock::wait(&root.join(ORDER))
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
    remove_left(root);
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
        let order = order(root).ok().flatten();
        let is_gone = order.is_some() && free(&dir) && durable::rename(&dir, gone.as_ref()).is_ok();
        drop(order);
        if is_gone {
            total -= bytes;
            // If this fails, the next call tries again.
            let _ = durable::remove(gone.as_ref());
        }
    }
    total
}

/// Removes what interrupted calls left, as far as that can be known.
fn remove_left(root: &Path) {
    let order = order(root).ok().flatten();
    let ordered = order.as_ref().is_some_and(Lock::is_certain);
    for left in entries(root) {
        let is_going = left.file_name().as_encoded_bytes().ends_with(GONE.as_bytes());
        if is_going || Unfinished::is_left(&left.path(), ordered) {
            let _ = durable::remove(&left.path());
        }
    }
}

/// Of the files in a folder, as far as they can be read.
pub(crate) fn metadata(dir: &Path) -> impl Iterator<Item = Metadata> {
    entries(dir).filter_map(|file| file.metadata().ok())
}

fn entries(dir: &Path) -> impl Iterator<Item = DirEntry> {
    std::fs::read_dir(dir).into_iter().flatten().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_may_make_the_same_folder_at_once() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let dir = root.path().join("tokens");
        let [first, second] = [(); 2].map(|()| Unfinished::begin(&dir).expect("begins"));
        for (folder, by) in [(&second, "second"), (&first, "first")] {
            std::fs::write(folder.path().join("shard"), by).expect("writes");
        }
        remove_left(root.path());
        second.finish().expect("nobody was faster");
        first.finish().expect_err("another one was");
        assert_eq!(std::fs::read(dir.join("shard")).expect("reads"), b"second");
        let folders = entries(root.path()).filter(|entry| entry.path().is_dir());
        assert_eq!(folders.count(), 1, "what was not needed is gone");
    }
}
