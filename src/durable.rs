//! Files that survive: written under another name, synced, and only then given their own.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::faults::{self, FileOp};

/// A failure of the file system on the way of saving or loading.
pub(super) fn io_error(path: &Path, what: &str, cause: std::io::Error) -> Error {
    Error::checkpoint(path.display(), format!("{what}: {cause}"))
}

/// Why a file was not read.
pub(super) enum NotRead {
    /// It is not there, or is not such a file.
    Wrong(Error),
    /// The system refuses to read it, which says nothing about the file.
    Refused(Error),
}

impl NotRead {
    /// The error, where the difference does not matter.
    pub fn into_error(self) -> Error {
        match self {
            Self::Wrong(error) | Self::Refused(error) => error,
        }
    }
}

/// The whole of a regular file. What is allocated is bounded by the file's length, and that by `max_bytes`.
///
/// # Errors
/// When it is missing, not a regular file, too long, unreadable, or changes while being read.
pub(super) fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    try_read_file(path, max_bytes).map_err(NotRead::into_error)
}

/// As [`read_file`], for whoever does without a file that is not there, but not without one that cannot be read.
///
/// # Errors
/// As [`read_file`].
pub(super) fn try_read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, NotRead> {
    let wrong = |message: String| NotRead::Wrong(Error::checkpoint(path.display(), message));
    let cannot = |cause: std::io::Error| {
        let is_there = !matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
        let error = io_error(path, "cannot be read", cause);
        if is_there { NotRead::Refused(error) } else { NotRead::Wrong(error) }
    };
    // Asked before opening, because opening a named pipe would wait for its other end.
    let metadata = fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(wrong("is not a regular file".into()));
    }
    let len = metadata.len();
    if len > max_bytes {
        return Err(wrong(format!("has {len} bytes, expected at most {max_bytes}")));
    }
    let mut bytes = Vec::new();
    if usize::try_from(len).is_err() || bytes.try_reserve_exact(len as usize).is_err() {
        let message = format!("its {len} bytes do not fit into memory");
        return Err(NotRead::Refused(Error::checkpoint(path.display(), message)));
    }
    File::open(path).map_err(cannot)?.take(len).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 != len {
        return Err(wrong(format!("ended after {} of {len} bytes", bytes.len())));
    }
    Ok(bytes)
}

/// Writes a new file and waits until it is on the disk.
///
/// # Errors
/// When it exists, or the disk is full or fails.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        faults::file(FileOp::Create(path))?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        faults::file(FileOp::Write(path, bytes))?;
        file.write_all(bytes)?;
        faults::file(FileOp::SyncFile(path))?;
        file.sync_all()
    };
    write().map_err(|cause| io_error(path, "cannot be written", cause))
}

/// Makes a folder and those it lies in, where they are missing. Their names are on the disk afterwards.
///
/// # Errors
/// When the disk is full or fails.
pub fn create_folders(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let folder = parent(path);
    if folder != path {
        create_folders(folder)?;
    }
    create_folder(path)?;
    sync_folder(folder)
}

/// Makes a folder, which is there for certain once the one it lies in is synced.
///
/// # Errors
/// When the disk is full or fails.
pub(super) fn create_folder(path: &Path) -> Result<()> {
    let made = faults::file(FileOp::CreateFolder(path)).and_then(|()| fs::create_dir(path));
    match made {
        // Another process was faster.
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.map_err(|cause| io_error(path, "cannot be created", cause)),
    }
}

/// Gives a file or folder another name, for certain once the folder of that is synced.
pub(super) fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    faults::file(FileOp::Rename(from, to))?;
    fs::rename(from, to)
}

/// Puts a file in place, whole or not at all; one that was there before is replaced.
///
/// # Errors
/// When the disk is full or fails; what was there before is then still there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = written_beside(path, bytes)?;
    rename(temporary.path(), path).map_err(|cause| io_error(path, "cannot be replaced", cause))?;
    sync_folder(parent(path))
}

/// Finds out whether [`replace_file`] could put a file in place, and leaves what is there as it is: before work of minutes
/// whose result would have no place.
///
/// # Errors
/// Those of [`replace_file`], as far as they can be known before.
pub fn try_replace_file(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::checkpoint(path.display(), "is a folder, expected a file"));
    }
    written_beside(path, &[]).map(drop)
}

/// A file under another name in the folder where `path` is to lie.
fn written_beside(path: &Path, bytes: &[u8]) -> Result<Temporary> {
    if path.file_name().is_none() {
        return Err(Error::checkpoint(path.display(), "is not a file name")
            .hint("a path that ends in a file"));
    }
    create_folders(parent(path))?;
    let temporary = Temporary::beside(path);
    write_new(temporary.path(), bytes)?;
    Ok(temporary)
}

/// Waits until the names in a folder are on the disk.
///
/// # Errors
/// When the disk fails.
pub fn sync_folder(folder: &Path) -> Result<()> {
    // Elsewhere a folder cannot be opened, and a rename is as durable as it gets.
    if cfg!(unix) {
        faults::file(FileOp::SyncFolder(folder))
            .and_then(|()| File::open(folder))
            .and_then(|folder| folder.sync_all())
            .map_err(|cause| io_error(folder, "cannot be synced", cause))?;
    }
    Ok(())
}

/// The folder that a path lies in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// In the name of what is not finished.
const TEMPORARY: &str = ".tmp-";

/// A temporary file or folder: whatever is still under its name is removed when it is dropped.
pub(super) struct Temporary(PathBuf);

impl Temporary {
    /// A name beside `path` that nobody else takes: no other thread, and no process in another container or on another
    /// machine that shares the disk, where numbers of processes come again.
    pub fn beside(path: &Path) -> Self {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!("{TEMPORARY}{:016x}", RandomState::new().build_hasher().finish()));
        Self(path.with_file_name(name))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // There is nobody to tell; the next save tries again.
        let _ = remove(&self.0);
    }
}

/// Removes what interrupted processes left in a folder that nobody else writes.
///
/// # Errors
/// When the folder cannot be read, or something in it not be removed.
pub(super) fn remove_temporaries(folder: &Path) -> Result<()> {
    let entries =
        fs::read_dir(folder).map_err(|cause| io_error(folder, "cannot be read", cause))?;
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| is_temporary(path)) {
        remove(&path).map_err(|cause| io_error(&path, "cannot be removed", cause))?;
    }
    Ok(())
}

/// Whether it is called as what is not finished.
pub(super) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.contains(TEMPORARY)
}

/// Removes a file or a folder with all that is in it, if there is one.
pub(super) fn remove(path: &Path) -> std::io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) => faults::file(FileOp::Remove(path)).and_then(|()| match metadata.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        }),
        Err(cause) => Err(cause),
    };
    match removed {
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_several_replace_at_once_is_one_of_theirs() {
        const LEN: usize = 100_000;
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("shared.json");
        let replace = |byte: u8| {
            for _ in 0..20 {
                replace_file(&path, &vec![byte; LEN]).expect("replaces");
                let found = fs::read(&path).expect("it is always there");
                assert_eq!(found.len(), LEN);
                assert!(found.iter().all(|&b| b == found[0]), "bytes of two");
            }
        };
        std::thread::scope(|scope| {
            (0..4).for_each(|byte| drop(scope.spawn(move || replace(byte))));
        });
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn what_an_interrupted_process_left_is_removed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let names = ["config.toml", ".config.toml.tmp-17", ".hidden", "a.tmp-1"];
        for name in names {
            fs::write(dir.path().join(name), "").expect("writes");
        }
        fs::create_dir(dir.path().join(".step-1.tmp-9")).expect("a folder");
        remove_temporaries(dir.path()).expect("removes");
        let mut left: Vec<OsString> =
            fs::read_dir(dir.path()).expect("a folder").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, [".hidden", "a.tmp-1", "config.toml"]);
    }
}
