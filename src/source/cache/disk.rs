//! Samples kept in files: `NAME.pixels`, to which they are appended, and `NAME.index`, to which a line is appended for
//! each once it is written. Both lie in a folder called by a hash of all that the samples depend on, so that changed data
//! never find it.
//!
//! Nothing is synced. A line of the index has a checksum of itself and one of its sample, which is checked at every read:
//! whatever a crash leaves half written, or a disk damages, is no entry and is made again.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::Budget;
use super::table::Table;
use crate::error::{Error, Result};
use crate::kept;
use crate::lock::{self, Lock};
use crate::source::blob::read_exact_at;
use crate::source::{Sample, Target};

/// In a folder: held by the process that writes it.
const LOCK: &str = "lock";

/// Bytes of a line of the index.
const LINE: usize = 40;

/// The folder of one data set, which one process at a time writes.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    budget: Arc<Budget>,
    /// Held locked for as long as the folder is in use; without it the folder is somebody else's and only read.
    lock: Option<Lock>,
}

/// Where a sample lies in its file.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    sample: u64,
    offset: u64,
    input_len: u64,
    /// The class.
    target: u64,
    crc: u32,
}

pub(super) struct Disk {
    entries: Table<Entry>,
    pixels: Mutex<File>,
    reader: File,
    index: Mutex<File>,
    end: AtomicU64,
    writes: AtomicBool,
    path: PathBuf,
    budget: Arc<Budget>,
}

impl Folder {
    /// Opens the folder `key` below `root`, whose files may take `bytes` together with those of other data sets: of
    /// these the oldest are removed until there is room for all that this one may take.
    ///
    /// # Errors
    /// When the folder cannot be made or its lock not be opened.
    pub fn open(root: &Path, key: &str, bytes: u64) -> Result<Arc<Self>> {
        let dir = root.join(key);
        let wrong = |e| {
            Error::data(dir.display(), "cannot be used as a cache")
                .hint("--cache ram, or INFLIGHT_DATA set to a folder with space")
                .caused_by(e)
        };
        std::fs::create_dir_all(root).map_err(wrong)?;
        // Nobody is to remove the folder between its making and its lock.
        let order = kept::order(root).map_err(wrong)?;
        std::fs::create_dir_all(&dir).map_err(wrong)?;
        let lock = Lock::hold(&dir.join(LOCK)).map_err(wrong)?.filter(Lock::is_certain);
        drop(order);
        let others = make_room(root, &dir, bytes / 2);
        Ok(Arc::new(Self { dir, budget: Budget::new(bytes.saturating_sub(others)), lock }))
    }
}

/// Removes other caches, the oldest first, until those that are left take at most `bytes_max`; how much that is. One in
/// use stays.
fn make_room(root: &Path, own: &Path, bytes_max: u64) -> u64 {
    let used = |dir: &Path| {
        let other = dir != own && dir.join(LOCK).is_file();
        let modified = || kept::metadata(dir).filter_map(|file| file.modified().ok());
        if other { modified().max() } else { None }
    };
    let free = |dir: &Path| lock::is_free(&dir.join(LOCK));
    kept::remove_oldest(root, bytes_max, used, free)
}

impl Folder {
    /// Opens the files `name` for a source of `len` samples, and reads which are there.
    ///
    /// # Errors
    /// When they cannot be opened or read.
    pub(super) fn open_files(&self, name: &str, len: usize) -> Result<Disk> {
        let open = |ending: &str| -> Result<File> {
            let path = self.dir.join(format!("{name}.{ending}"));
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(&path);
            file.map_err(|e| Error::data(path.display(), "cannot be opened").caused_by(e))
        };
        let (pixels, reader, mut index) = (open("pixels")?, open("pixels")?, open("index")?);
        let wrong = |e| Error::data(self.dir.display(), "its index cannot be read").caused_by(e);
        let end = pixels.metadata().map_err(wrong)?.len();
        let mut lines = Vec::new();
        index.read_to_end(&mut lines).map_err(wrong)?;
        let entries = Table::new(len);
        for entry in lines.chunks_exact(LINE).filter_map(Entry::parse) {
            if entry.fits(end) && entry.sample < len as u64 {
                entries.set(entry.sample as usize, entry);
            }
        }
        // A line that is cut off is written over.
        let whole = lines.len() - lines.len() % LINE;
        index.seek(SeekFrom::Start(whole as u64)).map_err(wrong)?;
        let room = self.budget.take(end + lines.len() as u64);
        Ok(Disk {
            entries,
            pixels: Mutex::new(pixels),
            reader,
            index: Mutex::new(index),
            end: AtomicU64::new(end),
            writes: AtomicBool::new(self.lock.is_some() && room),
            path: self.dir.join(format!("{name}.pixels")),
            budget: self.budget.clone(),
        })
    }
}

impl Entry {
    fn line(&self) -> [u8; LINE] {
        let mut line = [0; LINE];
        line[..8].copy_from_slice(&self.sample.to_le_bytes());
        line[8..16].copy_from_slice(&self.offset.to_le_bytes());
        line[16..24].copy_from_slice(&self.input_len.to_le_bytes());
        line[24..32].copy_from_slice(&self.target.to_le_bytes());
        line[32..36].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32fast::hash(&line[..36]);
        line[36..].copy_from_slice(&crc.to_le_bytes());
        line
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let long = |at: usize| Some(u64::from_le_bytes(line.get(at..at + 8)?.try_into().ok()?));
        let short = |at: usize| Some(u32::from_le_bytes(line.get(at..at + 4)?.try_into().ok()?));
        let entry = Self {
            sample: long(0)?,
            offset: long(8)?,
            input_len: long(16)?,
            target: long(24)?,
            crc: short(32)?,
        };
        (crc32fast::hash(&line[..36]) == short(36)?).then_some(entry)
    }

    /// Whether it lies within so many bytes.
    fn fits(&self, bytes: u64) -> bool {
        self.offset.checked_add(self.input_len).is_some_and(|end| end <= bytes)
    }
}

impl Disk {
    pub fn has(&self, index: usize) -> bool {
        self.entries.get(index).is_some()
    }

    /// Reads a sample into `scratch`; its class. None where there is none, or it is damaged.
    pub fn get(&self, index: usize, scratch: &mut Vec<u8>) -> Option<u32> {
        let entry = self.entries.get(index)?;
        let len = entry.input_len as usize;
        read_exact_at(&self.reader, &self.path, entry.offset, len, scratch).ok()?;
        (crc32fast::hash(scratch) == entry.crc).then_some(entry.target as u32)
    }

    /// Keeps a sample if there is room for it. A disk that is full or broken keeps nothing more, and that is all.
    pub fn keep(&self, index: usize, sample: &Sample<'_>) {
        let Target::Class(class) = sample.target else { return };
        if !self.writes.load(Relaxed) || self.has(index) {
            return;
        }
        let len = sample.input.len() as u64;
        if !self.budget.take(len + LINE as u64) {
            return;
        }
        let crc = crc32fast::hash(sample.input);
        if self.append(index, sample.input, class, crc).is_none() {
            self.writes.store(false, Relaxed);
        }
    }

    fn append(&self, index: usize, input: &[u8], class: u32, crc: u32) -> Option<()> {
        let mut pixels = self.pixels.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = self.end.load(Relaxed);
        pixels.seek(SeekFrom::Start(offset)).ok()?;
        pixels.write_all(input).ok()?;
        self.end.store(offset + input.len() as u64, Relaxed);
        drop(pixels);
        let input_len = input.len() as u64;
        let (sample, target) = (index as u64, u64::from(class));
        let entry = Entry { sample, offset, input_len, target, crc };
        let mut lines = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        lines.write_all(&entry.line()).ok()?;
        drop(lines);
        self.entries.set(index, entry);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_second_reads_and_does_not_write() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let open = || {
            let folder = Folder::open(root.path(), "key", 1 << 20).expect("opens");
            (folder.open_files("train", 3).expect("opens"), folder)
        };
        let sample = Sample { input: &[1, 2, 3], target: Target::Class(1) };
        let (mut found, len) =
            (Vec::new(), |disk: &Disk| std::fs::metadata(&disk.path).map_or(0, |m| m.len()));
        let (first, folder) = open();
        first.keep(0, &sample);
        let (second, _second) = open();
        second.keep(1, &sample);
        assert_eq!(second.get(0, &mut found), Some(1));
        assert_eq!((found, second.has(1), len(&second)), (vec![1, 2, 3], false, 3));
        // Nothing is kept twice, and who comes later may write once nobody else does.
        first.keep(0, &sample);
        assert_eq!(len(&first), 3);
        drop((first, folder, second, _second));
        let (third, _folder) = open();
        third.keep(1, &sample);
        assert_eq!((third.has(1), len(&third)), (true, 6));
    }

    #[test]
    fn a_folder_is_not_made_while_others_are_removed() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let dir = root.path().join("key");
        std::thread::scope(|scope| {
            // As whoever removes folders does.
            let order = kept::order(root.path()).expect("opens");
            let opening = scope.spawn(|| Folder::open(root.path(), "key", 1 << 20));
            for _ in 0..50 {
                assert!(!dir.exists(), "it could be removed before it is held");
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            drop(order);
            let _folder = opening.join().expect("no panic").expect("opens");
            assert!(dir.join(LOCK).is_file() && !lock::is_free(&dir.join(LOCK)));
        });
    }

    #[test]
    fn the_oldest_goes_and_no_more_than_must() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let keep = |key: &str, age_s: u64| {
            let folder = Folder::open(root.path(), key, 1 << 20).expect("opens");
            let disk = folder.open_files("train", 3).expect("opens");
            disk.keep(0, &Sample { input: &[1; 1000], target: Target::Class(1) });
            let then = std::time::SystemTime::now() - std::time::Duration::from_secs(age_s);
            for file in std::fs::read_dir(&folder.dir).expect("a folder").flatten() {
                let file = File::options().write(true).open(file.path()).expect("opens");
                file.set_modified(then).expect("a time");
            }
            folder.dir.clone()
        };
        let dirs = [keep("a", 100), keep("b", 300), keep("c", 200)];
        // What is no cache is not touched.
        std::fs::create_dir(root.path().join("other")).expect("a folder");
        std::fs::write(root.path().join("other/file"), [1; 5000]).expect("writes");
        let own = root.path().join("own");
        let all = make_room(root.path(), &own, u64::MAX);
        assert!((3000..5000).contains(&all), "{all}");
        let left = make_room(root.path(), &own, all - 1);
        assert_eq!(
            (left, dirs.each_ref().map(|dir| dir.exists())),
            (all / 3 * 2, [true, false, true])
        );
        assert!(root.path().join("other/file").exists());
    }
}
