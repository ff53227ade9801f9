//! The cache of what was fetched: a folder for each URL, within a limit of bytes for all of them together.
//!
//! ```text
//! CACHE/lock                 held while folders are made or evicted
//! CACHE/4f1c…/lock           held, shared, by every process that uses the folder; its time is that of the last use
//!            /fetching       held by the one process that fetches
//!            /files/cat/7.jpg
//!            /tags/cat/7.jpg     what the object was when it was fetched: written after the file is whole
//!            /parts/…            files that are not whole yet
//!            /complete           what to open and how much it is, once all is there
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use super::address::Address;
use super::listing::Object;
use crate::error::{Error, Result};
use crate::lock::{self, Lock};
use crate::source::shard_manifest::hex;

/// Locks of what this process uses: held until it ends, since a source may read its files until then.
static IN_USE: Mutex<Vec<Lock>> = Mutex::new(Vec::new());

/// The folder of one URL.
pub(super) struct Cache {
    /// The folder of all.
    all: PathBuf,
    own: PathBuf,
    url: String,
    bytes_max: u64,
    /// Held from [`Cache::prepare`] on.
    fetching: Option<Lock>,
    /// What will be there, known from then on.
    all_of_it: Complete,
}

/// All that was fetched, which may be less by the time it is opened without a network.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Complete {
    /// What to open, below the folder.
    open: PathBuf,
    files: usize,
    bytes: u64,
}

/// What a file was fetched from.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Tag {
    bytes: u64,
    tag: String,
}

fn io(path: &Path, what: &str, error: std::io::Error) -> Error {
    Error::data(path.display(), what)
        .hint("another --cloud-cache-dir, or room on the disk")
        .caused_by(error)
}

impl Cache {
    /// Opens the folder of `url` below `all`, and keeps others from evicting it.
    pub fn open(all: &Path, url: &str, bytes_max: u64) -> Result<Self> {
        let own = all.join(hex(&Sha256::digest(url)[..8]));
        let made = fs::create_dir_all(all);
        made.map_err(|e| io(all, "the cache cannot be made", e))?;
        let _order = hold(&all.join("lock"))?;
        fs::create_dir_all(&own).map_err(|e| io(&own, "the cache cannot be made", e))?;
        let path = own.join("lock");
        // Only who evicts holds it alone, which is nobody now.
        let in_use = Lock::share(&path).map_err(|e| io(&path, "cannot be opened", e))?;
        let in_use = in_use.ok_or_else(|| taken(&path))?;
        in_use.touch().map_err(|e| io(&path, "cannot be written", e))?;
        IN_USE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(in_use);
        let url = Address::shown(url);
        Ok(Self {
            all: all.into(),
            own,
            url,
            bytes_max,
            fetching: None,
            all_of_it: Complete::default(),
        })
    }

    /// What to open, if all of it was fetched before and nothing of it is gone.
    pub fn complete(&self) -> Option<PathBuf> {
        let text = fs::read(self.own.join("complete")).ok()?;
        let all_of_it: Complete = serde_json::from_slice(&text).ok()?;
        let (mut files, mut bytes) = (0, 0);
        for file in files_of(&self.own.join("files")) {
            (files, bytes) = (files + 1, bytes + file.len());
        }
        ((files, bytes) == (all_of_it.files, all_of_it.bytes))
            .then(|| self.own.join(all_of_it.open))
    }

    /// Makes room for `objects`, drops what is none of them any more, and returns those that are missing.
    ///
    /// # Errors
    /// When they are larger than the cache may be, or what others use leaves no room.
    pub fn prepare(&mut self, objects: Vec<Object>) -> Result<Vec<Object>> {
        let bytes = objects.iter().map(|object| object.bytes).sum::<u64>();
        if bytes > self.bytes_max {
            let message = format!(
                "found {} objects of {bytes} bytes in all, expected at most {}, the size of the cache",
                objects.len(),
                self.bytes_max
            );
            return Err(Error::data(&self.url, message)
                .hint(format!("--cloud-cache-bytes {bytes}, or a part of the data")));
        }
        self.fetching = Some(hold(&self.own.join("fetching"))?);
        // What an earlier process left unfinished.
        let _ = fs::remove_dir_all(self.own.join("parts"));
        let _ = fs::remove_file(self.own.join("complete"));
        let open = match &objects[..] {
            [object] if !object.name.contains('/') => Path::new("files").join(&object.name),
            _ => "files".into(),
        };
        self.all_of_it = Complete { open, files: objects.len(), bytes };
        self.prune(&objects)?;
        self.make_room(bytes)?;
        for folder in ["files", "tags", "parts"] {
            let path = self.own.join(folder);
            fs::create_dir_all(&path).map_err(|e| io(&path, "cannot be made", e))?;
        }
        Ok(objects.into_iter().filter(|object| !self.has(object)).collect())
    }

    /// Whether a file is here as the object is there.
    fn has(&self, object: &Object) -> bool {
        let tag = fs::read(self.own.join("tags").join(&object.name)).ok();
        let tag: Option<Tag> = tag.and_then(|text| serde_json::from_slice(&text).ok());
        let file = fs::metadata(self.own.join("files").join(&object.name));
        tag == Some(Tag { bytes: object.bytes, tag: object.tag.clone() })
            && file.is_ok_and(|meta| meta.is_file() && meta.len() == object.bytes)
    }

    /// Deletes files that are no longer as an object is, or of which there is none.
    fn prune(&self, objects: &[Object]) -> Result<()> {
        let files = self.own.join("files");
        let known: std::collections::HashMap<&str, &Object> =
            objects.iter().map(|object| (&object.name[..], object)).collect();
        for entry in WalkDir::new(&files).contents_first(true).into_iter().flatten() {
            if !entry.file_type().is_file() {
                // Fails where there is something in it, as it should.
                let _ = fs::remove_dir(entry.path());
                continue;
            }
            let name = entry.path().strip_prefix(&files).ok().and_then(Path::to_str);
            let name = name.map(|name| name.replace(std::path::MAIN_SEPARATOR, "/"));
            let object = name.as_deref().and_then(|name| known.get(name));
            if !object.is_some_and(|object| self.has(object)) {
                fs::remove_file(entry.path())
                    .map_err(|e| io(entry.path(), "cannot be deleted", e))?;
            }
        }
        Ok(())
    }

    /// Evicts other folders, those unused for longest first, until `bytes` fit in beside the rest. One that a process
    /// uses is never evicted.
    fn make_room(&self, bytes: u64) -> Result<()> {
        let _order = hold(&self.all.join("lock"))?;
        let mut others: Vec<(SystemTime, PathBuf, u64)> = fs::read_dir(&self.all)
            .map_err(|e| io(&self.all, "cannot be read", e))?
            .flatten()
            .filter(|entry| entry.path() != self.own && entry.path().is_dir())
            .map(|entry| {
                let used = fs::metadata(entry.path().join("lock")).and_then(|meta| meta.modified());
                let bytes = bytes_of(&entry.path());
                (used.unwrap_or(SystemTime::UNIX_EPOCH), entry.path(), bytes)
            })
            .collect();
        others.sort();
        let mut sum = bytes + others.iter().map(|(.., bytes)| bytes).sum::<u64>();
        for (_, path, freed) in others {
            if sum <= self.bytes_max {
                return Ok(());
            }
            let lock = path.join("lock");
            let unused = Lock::hold(&lock).map_err(|e| io(&lock, "cannot be opened", e))?;
            if unused.is_some_and(|lock| lock.is_certain()) {
                fs::remove_dir_all(&path).map_err(|e| io(&path, "cannot be evicted", e))?;
                sum -= freed;
            }
        }
        if sum <= self.bytes_max {
            return Ok(());
        }
        let message = format!(
            "needs {bytes} bytes of the cache, and what other runs use leaves {}",
            (self.bytes_max + bytes).saturating_sub(sum)
        );
        Err(Error::data(&self.url, message).hint(format!("--cloud-cache-bytes {sum}")))
    }

    /// A place for an object that is being fetched.
    pub fn landing(&self, object: &Object) -> Result<Landing> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let part = self.own.join("parts").join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        let file = File::create(&part).map_err(|e| io(&part, "cannot be made", e))?;
        let path = self.own.join("files").join(&object.name);
        let tag = self.own.join("tags").join(&object.name);
        Ok(Landing { file, part, path, tag })
    }

    /// Notes that all is there; what to open.
    pub fn finish(&mut self) -> Result<PathBuf> {
        let path = self.own.join("complete");
        let new = self.own.join("parts/complete");
        let json = serde_json::to_vec(&self.all_of_it).expect("plain data are JSON");
        let written = fs::write(&new, json).and_then(|()| fs::rename(&new, &path));
        written.map_err(|e| io(&path, "cannot be written", e))?;
        self.fetching = None;
        Ok(self.own.join(&self.all_of_it.open))
    }
}

/// A file that becomes one of the cache once it is whole.
pub(super) struct Landing {
    file: File,
    part: PathBuf,
    path: PathBuf,
    tag: PathBuf,
}

impl Landing {
    /// Writes bytes to their place; several parts may be written at once.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        write_all_at(&self.file, at, bytes).map_err(|e| io(&self.part, "cannot be written", e))
    }

    /// Puts the whole file in its place, and says what it is of.
    pub fn finish(&self, object: &Object) -> Result<()> {
        self.file.sync_all().map_err(|e| io(&self.part, "cannot be written", e))?;
        for path in [&self.path, &self.tag] {
            let folder = path.parent().unwrap_or(path);
            fs::create_dir_all(folder).map_err(|e| io(folder, "cannot be made", e))?;
        }
        fs::rename(&self.part, &self.path).map_err(|e| io(&self.path, "cannot be made", e))?;
        let tag = Tag { bytes: object.bytes, tag: object.tag.clone() };
        let tag = serde_json::to_vec(&tag).expect("plain data are JSON");
        fs::write(&self.tag, tag).map_err(|e| io(&self.tag, "cannot be written", e))
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut at: u64, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
        (at, bytes) = (at + n as u64, &bytes[n..]);
    }
    Ok(())
}

/// Bytes of the files in a folder of the cache, finished or not.
fn bytes_of(folder: &Path) -> u64 {
    ["files", "parts"].iter().flat_map(|part| files_of(&folder.join(part))).map(|f| f.len()).sum()
}

/// The files in a folder and those below it.
fn files_of(folder: &Path) -> impl Iterator<Item = fs::Metadata> + use<> {
    let metadata = WalkDir::new(folder).into_iter().flatten().filter_map(|e| e.metadata().ok());
    metadata.filter(fs::Metadata::is_file)
}

/// Waits for a file that another process may hold: for moments, or while it fetches.
fn hold(path: &Path) -> Result<Lock> {
    let lock = Lock::wait(path).map_err(|e| io(path, "cannot be opened", e))?;
    lock.ok_or_else(|| taken(path))
}

fn taken(path: &Path) -> Error {
    let waited_s = lock::WAIT_MAX.as_secs();
    Error::data(path.display(), format!("another process has been at it for {waited_s} s"))
        .hint("ending that one, or another --cloud-cache-dir")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, bytes: u64, tag: &str) -> Object {
        let path = object_store::path::Path::from(name);
        Object { path, name: name.into(), bytes, tag: tag.into(), e_tag: None }
    }

    fn fill(cache: &mut Cache, objects: &[Object]) -> Vec<String> {
        let missing = cache.prepare(objects.to_vec()).expect("room");
        for object in &missing {
            let landing = cache.landing(object).expect("a place");
            landing.write(0, &vec![1; object.bytes as usize]).expect("writes");
            landing.finish(object).expect("lands");
        }
        cache.finish().expect("finishes");
        missing.into_iter().map(|object| object.name).collect()
    }

    /// Ends the use of a folder, as the end of a process does.
    fn release() {
        IN_USE.lock().expect("no panic").clear();
    }

    // One test, since all share the locks of this process.
    #[test]
    fn what_is_here_stays_within_the_limit_and_is_fetched_once() {
        kept_within_the_limit();
        what_was_not_used_for_longest_goes_first();
    }

    fn what_was_not_used_for_longest_goes_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = |url: &str| Cache::open(dir.path(), url, 100).expect("opens");
        for url in ["s3://a", "s3://b", "s3://c", "s3://d"] {
            fill(&mut open(url), &[object("1", 20, "t")]);
        }
        release();
        // The order in which the folder lists them is that of any hash, and not that of their use.
        let listed = fs::read_dir(dir.path()).expect("a cache").flatten();
        let mut folders: Vec<PathBuf> =
            listed.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        folders.reverse();
        for (age, folder) in folders.iter().enumerate() {
            let lock = File::options().write(true).open(folder.join("lock")).expect("opens");
            let used = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age as u64);
            lock.set_modified(used).expect("a time");
        }
        fill(&mut open("s3://e"), &[object("1", 60, "t")]);
        let left: Vec<bool> = folders.iter().map(|folder| folder.exists()).collect();
        assert_eq!(left, [false, false, true, true]);
        release();
    }

    fn kept_within_the_limit() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = |url| Cache::open(dir.path(), url, 100).expect("opens");
        let mut a = open("s3://a");
        let objects = [object("x/1", 10, "one"), object("2", 20, "two")];
        assert_eq!(fill(&mut a, &objects), ["x/1", "2"]);
        assert_eq!(a.complete(), Some(a.own.join("files")));
        assert_eq!(fs::read(a.own.join("files/x/1")).expect("is there"), [1; 10]);
        // Again: only what has changed; what is gone there is gone here.
        let mut again = open("s3://a");
        assert!(fill(&mut again, &objects).is_empty());
        assert_eq!(fill(&mut again, &[object("2", 20, "other")]), ["2"]);
        assert!(!a.own.join("files/x/1").exists());
        assert_eq!(again.complete(), Some(a.own.join("files/2")), "one file is opened as such");
        // A file that was cut, or was never whole, is fetched again; meanwhile nobody opens it without a network.
        fs::write(a.own.join("files/2"), b"cut").expect("writes");
        assert_eq!(again.complete(), None, "it was cut");
        assert_eq!(fill(&mut again, &[object("2", 20, "other")]), ["2"]);
        // In use, it is not evicted; unused, it is.
        let mut b = open("s3://b");
        let error = b.prepare(vec![object("3", 90, "t")]).expect_err("no room").to_string();
        assert!(error.contains("needs 90 bytes") && error.contains("leaves 80"), "{error}");
        drop(b);
        release();
        let mut b = open("s3://b");
        assert_eq!(fill(&mut b, &[object("3", 90, "t")]), ["3"]);
        assert!(!a.own.exists() && b.own.join("files/3").exists());
        let error = b.prepare(vec![object("3", 101, "t")]).expect_err("too large").to_string();
        assert!(
            error.contains("found 1 objects of 101 bytes in all, expected at most 100"),
            "{error}"
        );
        drop(b);
        release();
    }
}
