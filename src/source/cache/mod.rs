//! `--cache`: samples kept as they were read and decoded, so that later epochs do neither.
//!
//! Of image files the decoded pixels are kept, before anything random is done to them. What is kept once stays: an epoch
//! visits every sample once, so that a cache smaller than the data which makes room for the newest (the least recently
//! used goes) has dropped each sample by the time its turn comes again and never hits, while one that keeps what it
//! has hits as often as it is large (Mohan et al., "Analyzing and mitigating data stalls in DNN training", VLDB 2021,
//! section 5: MinIO). So there is no eviction within a run, nothing to look up which is recent, and no lock on the way
//! to what is kept.

mod disk;
mod ram;
mod table;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

pub(crate) use disk::Folder;

use crate::batch::SampleSpec;
use crate::decode;
use crate::error::{Error, Result};
use crate::source::{ENDLESS, Encoding, Sample, Source, SourceInfo, Target};

/// Bytes that a cache may take if nothing is said.
pub const CACHE_BYTES: u64 = 2 << 30;

/// Where samples are kept once they are decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheKind {
    /// Nowhere: every epoch reads and decodes.
    #[default]
    Off,
    /// In memory, for as long as the run lasts.
    Ram,
    /// In a file, also for later runs over the same unchanged data.
    Disk,
}

impl std::str::FromStr for CacheKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "off" => Ok(Self::Off),
            "ram" => Ok(Self::Ram),
            "disk" => Ok(Self::Disk),
            _ => Err(format!("found {name}, expected off, ram or disk")),
        }
    }
}

/// Bytes that are left to one or several caches together.
#[derive(Debug)]
pub struct Budget(AtomicU64);

impl Budget {
    /// So many bytes.
    pub fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(bytes)))
    }

    /// Takes `bytes`, if so many are left.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Relaxed);
    }

    /// Bytes left.
    pub fn left(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What a cache has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheCounts {
    /// Reads that found their sample.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
}

/// A source whose samples are kept once they are read and decoded, for as long as there is room.
pub struct Cached {
    inner: Arc<dyn Source>,
    kept: Kept,
    hits: AtomicU64,
    misses: AtomicU64,
}

enum Kept {
    Ram(ram::Ram),
    Disk(disk::Disk),
}

thread_local! {
    // The file of an image while its pixels are made in the caller's memory.
    static FILE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Cached {
    /// Keeps samples in memory, within `budget`.
    ///
    /// # Errors
    /// When the source is a stream, of which no sample comes twice.
    pub fn ram(inner: Arc<dyn Source>, budget: Arc<Budget>) -> Result<Self> {
        let kept = Kept::Ram(ram::Ram::new(known_len(&*inner)?, budget));
        Ok(Self::new(inner, kept))
    }

    /// Keeps samples in the files called `name` of `folder`.
    ///
    /// # Errors
    /// As [`ram`](Self::ram), or when the files cannot be opened.
    pub(crate) fn disk(inner: Arc<dyn Source>, folder: &Arc<Folder>, name: &str) -> Result<Self> {
        let kept = Kept::Disk(folder.open_files(name, known_len(&*inner)?)?);
        Ok(Self::new(inner, kept))
    }

    fn new(inner: Arc<dyn Source>, kept: Kept) -> Self {
        Self { inner, kept, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// How often a sample was found.
    pub fn counts(&self) -> CacheCounts {
        CacheCounts { hits: self.hits.load(Relaxed), misses: self.misses.load(Relaxed) }
    }

    fn has(&self, index: usize) -> bool {
        match &self.kept {
            Kept::Ram(ram) => ram.get(index).is_some(),
            Kept::Disk(disk) => disk.has(index),
        }
    }

    /// The samples that have to be read.
    fn missing(&self, indices: &[usize]) -> Vec<usize> {
        indices.iter().copied().filter(|&index| !self.has(index)).collect()
    }

    /// Reads and decodes a sample.
    fn make<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        if self.inner.encoding() != Encoding::Image {
            return self.inner.read(index, scratch);
        }
        let mut file = FILE.take();
        let made = self.inner.read(index, &mut file).and_then(|sample| {
            let header = decode::header(sample.input)?;
            let channels = self.inner.spec().input_shape.first().copied().unwrap_or(3);
            decode::decode(sample.input, channels, scratch)?;
            let size = [header.height, header.width].map(|n| (n as u32).to_le_bytes());
            scratch.extend_from_slice(size.as_flattened());
            match sample.target {
                Target::Class(class) => Ok(class),
                other => {
                    let message = format!("found target {other:?} of an image, expected a class");
                    Err(Error::data("target", message))
                }
            }
        });
        FILE.set(file);
        Ok(Sample { input: scratch, target: Target::Class(made?) })
    }
}

fn known_len(source: &dyn Source) -> Result<usize> {
    match source.len() {
        ENDLESS => Err(crate::source::no_stream(source, "to be cached")),
        len => Ok(len),
    }
}

/// The pixels `[row][column][channel]` and `[height, width]` of a sample encoded as [`Encoding::Pixels`].
///
/// # Errors
/// When the bytes are not as many as they say.
pub(crate) fn pixels(input: &[u8], channels: usize) -> Result<(&[u8], [usize; 2])> {
    let parts = input.split_last_chunk::<8>();
    let size = |&[a, b, c, d, e, f, g, h]: &[u8; 8]| {
        [[a, b, c, d], [e, f, g, h]].map(|n| u32::from_le_bytes(n) as usize)
    };
    match parts.map(|(pixels, end)| (pixels, size(end))) {
        Some((pixels, [height, width])) if pixels.len() == channels * height * width => {
            Ok((pixels, [height, width]))
        }
        _ => Err(Error::data("pixels", format!("found {} bytes that do not fit", input.len()))),
    }
}

impl Source for Cached {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.inner.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.inner.info()
    }

    fn behind(&self) -> Option<&dyn Source> {
        Some(&*self.inner)
    }

    fn encoding(&self) -> Encoding {
        match self.inner.encoding() {
            Encoding::Image => Encoding::Pixels,
            other => other,
        }
    }

    fn announce(&self, indices: &[usize]) {
        self.inner.announce(&self.missing(indices));
    }

    fn prefetch(&self, indices: &[usize]) -> Result<()> {
        self.inner.prefetch(&self.missing(indices))
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        match &self.kept {
            Kept::Ram(ram) => {
                if let Some(kept) = ram.get(index) {
                    self.inner.skip(index);
                    self.hits.fetch_add(1, Relaxed);
                    return Ok(kept.lend());
                }
            }
            Kept::Disk(disk) => {
                if let Some(class) = disk.get(index, scratch) {
                    self.inner.skip(index);
                    self.hits.fetch_add(1, Relaxed);
                    return Ok(Sample { input: scratch, target: Target::Class(class) });
                }
            }
        }
        self.misses.fetch_add(1, Relaxed);
        let sample = self.make(index, scratch)?;
        match &self.kept {
            Kept::Ram(ram) => ram.keep(index, &sample),
            Kept::Disk(disk) => disk.keep(index, &sample),
        }
        Ok(sample)
    }
}
