//! Bytes that can be read at any place by many threads at once: of a file on this machine, or of an object elsewhere.
//!
//! A source that reads parts of large files (the members of a tar archive, the row groups of a table) holds one
//! [`Blob`] for each file, notes (blob, offset, length) of each sample, and
//!
//! - in [`Source::prefetch`](super::Source::prefetch) passes what is going to be read to [`Blob::prefetch`], on the
//!   prepare thread: for a local file that costs nothing, for a remote one it brings what is missing;
//! - in [`Source::read`](super::Source::read) calls [`Blob::read_at`] with the worker's scratch, which then finds
//!   the bytes on this machine.
//!
//! A source of small files, one a sample, keeps a path and a [`Stamp`] of each and calls [`Stamp::read`].
//!
//! Files are read with `pread`, never mapped: one that is truncated meanwhile ends in an error, not in SIGBUS. What
//! was changed, deleted or replaced since it was first looked at is an error that names the file, since a run over
//! data that change is no run that could be repeated.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use super::file::io_error;
use crate::error::{Error, Result};

/// Handles of [`LocalFile`]s that stay open at most: a quarter of the 256 that macOS allows a process, far more than
/// the shards that a shuffle within blocks visits at a time.
pub const OPEN_FILES_MAX: usize = 64;

/// Bytes of a known length that do not change.
pub trait Blob: Send + Sync {
    /// What it is called in errors: a path or a URL.
    fn name(&self) -> String;

    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether it has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces what is in `into` by the `len` bytes from `offset`. Reuses its memory.
    ///
    /// # Errors
    /// When the range is not within the blob, the bytes cannot be read, or the blob has changed.
    fn read_at(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()>;

    /// Brings the ranges (in bytes) onto this machine, and waits for them. Not to be called inside a rayon pool.
    ///
    /// # Errors
    /// When they will not come.
    fn prefetch(&self, _ranges: &[Range<u64>]) -> Result<()> {
        Ok(())
    }
}

/// How a file was when it was first looked at; what a later read compares with. 16 bytes, for sources that keep one
/// for each of a million files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stamp {
    len: u64,
    /// Nanoseconds since 1970, wrapped around in 584 years; 0 where the file system does not tell.
    modified_ns: u64,
}

impl Stamp {
    /// The stamp in a file's metadata.
    pub fn of(meta: &Metadata) -> Self {
        let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self { len: meta.len(), modified_ns: modified.map_or(0, |time| time.as_nanos() as u64) }
    }

    /// The stamp of the file at `path`.
    ///
    /// # Errors
    /// When there is none, or it is a folder or something else that is not read like a file.
    pub fn look(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|e| io_error(path, e))?;
        if !meta.is_file() {
            let found = if meta.is_dir() { "is a folder" } else { "is no regular file" };
            return Err(Error::data(path.display(), format!("{found}, expected a file")));
        }
        Ok(Self::of(&meta))
    }

    /// Length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Replaces what is in `into` by the whole file, which is opened for this and closed again.
    ///
    /// # Errors
    /// When it cannot be read, or is no longer as this stamp says.
    pub fn read(&self, path: &Path, into: &mut Vec<u8>) -> Result<()> {
        let file = open_again(path)?;
        read_exact_at(&file, path, 0, self.len as usize, into)?;
        self.check(path, &file)
    }

    /// Checks that an open file is still as it was. Called after reading: what was read before is then right.
    fn check(&self, path: &Path, file: &File) -> Result<()> {
        let meta = file.metadata().map_err(|e| io_error(path, e))?;
        if Self::of(&meta) == *self && !is_deleted(&meta) {
            return Ok(());
        }
        Err(if is_deleted(&meta) {
            changed(path, "was deleted or replaced")
        } else if meta.len() != self.len {
            changed(path, &format!("has {} bytes now, expected {}", meta.len(), self.len))
        } else {
            changed(path, "was written to")
        })
    }
}

/// A file of this machine that is read again and again. Its handle stays open while it is among the
/// [`OPEN_FILES_MAX`] that were used last, and is opened again when it is needed after that.
#[derive(Debug)]
pub struct LocalFile {
    path: PathBuf,
    stamp: Stamp,
    /// Its key among the open handles.
    id: u64,
}

impl LocalFile {
    /// The file at `path`, as it is now.
    ///
    /// # Errors
    /// When there is none or it is a folder.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = path.into();
        let stamp = Stamp::look(&path)?;
        Ok(Self { path, stamp, id: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it was when it was first looked at.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }
}

impl Blob for LocalFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn len(&self) -> u64 {
        self.stamp.len
    }

    fn read_at(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.stamp.len) {
            let message =
                format!("found {} bytes, expected {len} from byte {offset}", self.stamp.len);
            return Err(Error::data(self.path.display(), message));
        }
        let file = HANDLES.get(self.id, || open_again(&self.path))?;
        read_exact_at(&file, &self.path, offset, len, into)?;
        self.stamp.check(&self.path, &file)
    }
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        HANDLES.close(self.id);
    }
}

/// The handles that are open, of all sources together: the system's limit is one for the process.
static HANDLES: LazyLock<Handles> = LazyLock::new(|| Handles::new(OPEN_FILES_MAX));

struct Handles {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// Handles with the time of their last use.
    files: HashMap<u64, (Arc<File>, u64)>,
    /// Counts uses.
    now: u64,
}

impl Handles {
    fn new(most: usize) -> Self {
        Self { most, open: Mutex::default() }
    }

    /// The open handle `id`, or a new one by `open`, for which the one unused for longest is closed. A read under way
    /// keeps its handle until it is done.
    fn get(&self, id: u64, open: impl FnOnce() -> Result<File>) -> Result<Arc<File>> {
        {
            let mut state = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            state.now += 1;
            let now = state.now;
            if let Some((file, used)) = state.files.get_mut(&id) {
                *used = now;
                return Ok(file.clone());
            }
        }
        // Opened without the lock, since a disk may be slow: at worst two threads open the same file.
        let file = Arc::new(open()?);
        let mut state = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while state.files.len() >= self.most {
            let oldest = state.files.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            oldest.map(|id| state.files.remove(&id));
        }
        let now = state.now;
        state.files.insert(id, (file.clone(), now));
        Ok(file)
    }

    fn close(&self, id: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).files.remove(&id);
    }
}

/// Opens a file that was there before.
fn open_again(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => changed(path, "is not there any more"),
        _ => io_error(path, e),
    })
}

fn changed(path: &Path, how: &str) -> Error {
    Error::data(path.display(), format!("{how}: the file changed during the run"))
        .hint("a copy of the data that nobody writes to")
}

/// Reads exactly `len` bytes from `offset` into `into`, over what is there.
pub(crate) fn read_exact_at(
    file: &File,
    path: &Path,
    offset: u64,
    len: usize,
    into: &mut Vec<u8>,
) -> Result<()> {
    if len > into.len() {
        into.try_reserve_exact(len - into.len()).map_err(|e| {
            let message = format!("needs {len} bytes of memory, more than there is");
            Error::data(path.display(), message).caused_by(e)
        })?;
    }
    into.resize(len, 0);
    let mut done = 0;
    while done < len {
        match positioned_read(file, offset + done as u64, &mut into[done..]) {
            Ok(0) => {
                let end = offset + done as u64;
                return Err(changed(path, &format!("ends after {end} bytes")));
            }
            Ok(n) => done += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(io_error(path, e)),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn positioned_read(file: &File, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, offset)
}

#[cfg(windows)]
fn positioned_read(file: &File, offset: u64, into: &mut [u8]) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, offset)
}

/// Whether no name leads to an open file any more.
#[cfg(unix)]
fn is_deleted(meta: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(meta) == 0
}

/// Whether no name leads to an open file any more; there, an open file cannot be deleted.
#[cfg(not(unix))]
fn is_deleted(_meta: &Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn file(dir: &tempfile::TempDir, name: &str) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, b"0123456789").expect("a file");
        path
    }

    fn refusal(found: Result<()>) -> String {
        found.expect_err("a file that changed").to_string()
    }

    #[test]
    fn any_range_within_the_file_can_be_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let blob = LocalFile::new(file(&dir, "a")).expect("opens");
        let mut bytes = vec![7; 100];
        for (offset, len) in [(0, 10), (3, 4), (9, 1), (10, 0), (0, 0)] {
            blob.read_at(offset, len, &mut bytes).expect("within the file");
            assert_eq!(bytes, b"0123456789"[offset as usize..offset as usize + len]);
        }
        for (offset, len) in [(0, 11), (11, 0), (u64::MAX, 1), (1, usize::MAX)] {
            let error = blob.read_at(offset, len, &mut bytes).expect_err("beyond the end");
            assert!(error.to_string().contains("found 10 bytes, expected"), "{error}");
        }
        assert!(bytes.capacity() < 1000, "nothing is allocated for what is not there");
    }

    #[test]
    fn what_happens_to_a_file_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        type Change = fn(&Path);
        let changes: [(Change, &str, &str); 4] = [
            (
                |path| {
                    let file = File::options().write(true).open(path).expect("writable");
                    file.set_len(4).expect("cuts");
                },
                "ends after 4 bytes",
                "ends after 4 bytes",
            ),
            (
                |path| {
                    let text = b"0123456789a";
                    std::fs::write(path, text).expect("writable");
                },
                "has 11 bytes now, expected 10",
                "has 11 bytes now, expected 10",
            ),
            (
                |path| {
                    let file = File::options().write(true).open(path).expect("writable");
                    file.set_modified(SystemTime::now() + Duration::from_secs(9)).expect("sets");
                },
                "was written to",
                "was written to",
            ),
            (
                |path| std::fs::remove_file(path).expect("deletes"),
                "was deleted or replaced",
                "is not there any more",
            ),
        ];
        let mut bytes = Vec::new();
        for (change, open, closed) in changes {
            let path = file(&dir, "a");
            let blob = LocalFile::new(&path).expect("opens");
            blob.read_at(0, 10, &mut bytes).expect("is as it was");
            let stamp = blob.stamp();
            stamp.read(&path, &mut bytes).expect("is as it was");
            assert_eq!(bytes, b"0123456789");
            change(&path);
            for (error, expected) in [
                (refusal(blob.read_at(0, 10, &mut bytes)), open),
                (refusal(stamp.read(&path, &mut bytes)), closed),
            ] {
                assert!(error.contains(expected), "{error}, expected {expected}");
                assert!(error.contains(&path.display().to_string()), "{error}");
                assert!(error.contains("changed during the run"), "{error}");
            }
        }
    }

    #[test]
    fn no_more_handles_stay_open_than_may() {
        let dir = tempfile::tempdir().expect("a folder");
        let handles = Handles::new(3);
        let paths: Vec<PathBuf> = (0..5).map(|i| file(&dir, &i.to_string())).collect();
        let get = |id: usize| handles.get(id as u64, || open_again(&paths[id])).expect("opens");
        for id in [0, 1, 2, 0, 3, 4, 0] {
            get(id);
            let open = handles.open.lock().expect("no panic");
            assert!(open.files.len() <= 3, "{} are open", open.files.len());
        }
        let mut open: Vec<u64> =
            handles.open.lock().expect("no panic").files.keys().copied().collect();
        open.sort_unstable();
        assert_eq!(open, [0, 3, 4], "the ones used last stay");
    }

    #[test]
    fn many_threads_read_more_files_than_may_be_open() {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs: Vec<LocalFile> = (0..3 * OPEN_FILES_MAX)
            .map(|i| LocalFile::new(file(&dir, &i.to_string())).expect("opens"))
            .collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let blobs = &blobs;
                scope.spawn(move || {
                    let mut bytes = Vec::new();
                    for i in 0..1000 {
                        let blob = &blobs[(i * 7 + thread * 31) % blobs.len()];
                        blob.read_at(2, 3, &mut bytes).expect("is there");
                        assert_eq!(bytes, b"234");
                    }
                });
            }
        });
        assert!(HANDLES.open.lock().expect("no panic").files.len() <= OPEN_FILES_MAX);
    }
}
