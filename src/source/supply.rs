//! What stands between a source and the workers: samples that are read ahead, and samples that are kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::cache::{Budget, CACHE_BYTES, CacheCounts, CacheKind, Cached, Folder};
use super::identity::add_samples;
use super::read_ahead::{ReadAhead, Room};
use super::{Encoding, Source};
use crate::batch::TargetSpec;
use crate::decode::DecodeSize;
use crate::error::{Error, Result};
use crate::source::shard_manifest::hex;

/// Readers at most where their number is found while the run goes on: what saturates a fast disk (queue depth 32).
pub const READERS_MAX: usize = 32;

/// Bytes of samples read ahead at most if nothing is said: some batches of photographs.
const AHEAD_BYTES: usize = 256 << 20;

/// How samples come to the workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Supply {
    /// Where decoded samples are kept.
    pub cache: CacheKind,
    /// Bytes that they may take; [`CACHE_BYTES`] if not given.
    pub cache_bytes: Option<u64>,
    /// The file or folder that the data are read from, and all settings that change what its samples are: what a cache
    /// on disk is known by.
    pub origin: Option<(PathBuf, String)>,
    /// Folder of caches on disk.
    pub cache_dir: Option<PathBuf>,
    /// Threads that read ahead. Without it, as many as make a difference.
    pub readers: Option<usize>,
    /// Batches that are read ahead. Without it, at least four, and at least two samples a reader.
    pub prefetch: Option<usize>,
    /// Bytes that samples read ahead may take, those trained on and those held out together.
    pub ahead_bytes: Option<usize>,
}

/// Sources with their supply.
pub(crate) struct Supplied {
    pub train: Arc<dyn Source>,
    pub validation: Option<Arc<dyn Source>>,
    pub stores: Stores,
}

/// What stands between the sources and the workers of a run.
#[derive(Default)]
pub struct Stores {
    /// Those that read ahead.
    pub ahead: Vec<Arc<ReadAhead>>,
    /// Those that keep what was read.
    pub caches: Vec<Arc<Cached>>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (ahead, caches) = (self.ahead.len(), self.caches.len());
        f.debug_struct("Stores").field("ahead", &ahead).field("caches", &caches).finish()
    }
}

impl Stores {
    /// Reads that found their sample read ahead, where something is.
    pub fn ahead_hits(&self) -> Option<u64> {
        let hits = self.ahead.iter().map(|ahead| ahead.hits());
        (!self.ahead.is_empty()).then(|| hits.sum())
    }

    /// Seconds that readers have read, summed over them.
    pub fn readers_busy_s(&self) -> f64 {
        self.ahead.iter().map(|ahead| ahead.busy_s()).sum()
    }

    /// Reads that found their sample kept, and those that did not, where something is.
    pub fn cache_counts(&self) -> Option<CacheCounts> {
        let counts = self.caches.iter().map(|cache| cache.counts());
        counts.reduce(|a, b| CacheCounts { hits: a.hits + b.hits, misses: a.misses + b.misses })
    }
}

/// What is trained on, and what is held out.
type Parts = (Arc<dyn Source>, Option<Arc<dyn Source>>);

impl Supply {
    /// Puts caches and readers in front of sources that gain by them. What lies in memory as it goes into a slot is left
    /// as it is, and a stream is too.
    ///
    /// # Errors
    /// When a reader cannot be started or a cache not be opened.
    pub(crate) fn set_up(
        &self,
        train: Arc<dyn Source>,
        validation: Option<Arc<dyn Source>>,
    ) -> Result<Supplied> {
        let room = Room::new(self.ahead_bytes.unwrap_or(AHEAD_BYTES));
        let mut stores = Stores::default();
        let mut read_ahead = |source: Arc<dyn Source>| -> Result<Arc<dyn Source>> {
            if !source.waits() || self.readers == Some(0) {
                return Ok(source);
            }
            let readers = self.readers.unwrap_or(READERS_MAX);
            let source = Arc::new(ReadAhead::start(source, readers, room.clone())?);
            // Their number is found from none on.
            source.set_readers(self.readers.unwrap_or(0));
            stores.ahead.push(source.clone());
            Ok(source)
        };
        let train = read_ahead(train)?;
        let validation = validation.map(&mut read_ahead).transpose()?;
        let (train, validation) = self.cached(train, validation, &mut stores.caches)?;
        Ok(Supplied { train, validation, stores })
    }

    fn cached(
        &self,
        train: Arc<dyn Source>,
        validation: Option<Arc<dyn Source>>,
        caches: &mut Vec<Arc<Cached>>,
    ) -> Result<Parts> {
        let gains = |source: &dyn Source| source.encoding() == Encoding::Image || source.waits();
        let bytes = self.cache_bytes.unwrap_or(CACHE_BYTES);
        if self.cache == CacheKind::Off || !gains(&*train) {
            return Ok((train, validation));
        }
        if train.info().decode == DecodeSize::Reduced {
            let message = "found reduced with --cache, which keeps pictures as they are in full";
            return Err(Error::config("--decode", message).hint("one of the two"));
        }
        let ram = Budget::new(bytes);
        let folder = match self.cache {
            CacheKind::Disk => Some(self.folder(&*train, validation.as_deref(), bytes)?),
            CacheKind::Off | CacheKind::Ram => None,
        };
        let mut cache = |source: Arc<dyn Source>, name: &str| -> Result<Arc<dyn Source>> {
            let cached = Arc::new(match &folder {
                Some(folder) => Cached::disk(source, folder, name)?,
                None => Cached::ram(source, ram.clone())?,
            });
            caches.push(cached.clone());
            Ok(cached)
        };
        let train = cache(train, "train")?;
        let validation = validation.map(|source| match gains(&*source) {
            true => cache(source, "validation"),
            false => Ok(source),
        });
        Ok((train, validation.transpose()?))
    }

    fn folder(
        &self,
        source: &dyn Source,
        validation: Option<&dyn Source>,
        bytes: u64,
    ) -> Result<Arc<Folder>> {
        let refuse = |message: String| Err(Error::config("--cache", message).hint("--cache ram"));
        if !matches!(source.spec().target, TargetSpec::Class { .. }) {
            return refuse("disk keeps samples with a class, found other targets".into());
        }
        let (Some((path, settings)), Some(root)) = (&self.origin, &self.cache_dir) else {
            return refuse(
                "disk needs data in files, by which it tells whether they changed".into(),
            );
        };
        let mut hash = Sha256::new();
        let info = source.info();
        hash.update(format!(
            "2 {settings} {} {:?} {:?}",
            info.name,
            info.class_names,
            source.spec()
        ));
        hash_files(path, &mut hash)?;
        // Samples are kept by their numbers, which are others where others are held out.
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for part in std::iter::once(source).chain(validation) {
            add_samples(part, path, &mut add);
        }
        Folder::open(root, &hex(&hash.finalize()[..16]), bytes)
    }
}

/// Hashes name, length and time of change of every file below `path`, in the order of their names.
fn hash_files(path: &Path, hash: &mut Sha256) -> Result<()> {
    for entry in walkdir::WalkDir::new(path).sort_by_file_name().follow_links(true) {
        let wrong = |e| Error::data(path.display(), "its files cannot be listed").caused_by(e);
        let entry = entry.map_err(wrong)?;
        let meta = entry.metadata().map_err(wrong)?;
        if meta.is_file() {
            let modified = meta.modified().ok();
            let modified = modified.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
            let absolute = std::path::absolute(entry.path());
            let name = absolute.as_deref().unwrap_or(entry.path());
            hash.update(format!("{}\0{}\0{modified:?}\0", name.display(), meta.len()));
        }
    }
    Ok(())
}
