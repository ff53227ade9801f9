//! The manifest that `inflight convert` writes beside shards: what they were made from, and what each one is.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use memchr::memmem;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::batch::DType;
use crate::error::{Error, Result};
use crate::source::file::io_error;
use crate::source::{Source, SourceInfo};

/// Name of the file.
pub const FILE: &str = "manifest.json";

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// Bytes of a manifest at most: 300,000 shards.
pub(crate) const BYTES_MAX: u64 = 64 << 20;

/// The first key of a manifest: of all that other programs call `manifest.json`, ours have it.
const KEY: &str = "\"inflight_shards\"";

/// A data set in shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardManifest {
    /// [`VERSION`].
    pub inflight_shards: u32,
    /// How the shards are written: `webdataset` or `parquet`.
    pub format: String,
    /// The data set that they were made from, by name or path.
    pub source: String,
    /// A hash of all that the shards depend on: the files of the source and the settings.
    pub plan: String,
    /// The seed of the order of the samples; without one it is that of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shuffle_seed: Option<u64>,
    /// Names of the classes; empty if they have none.
    pub class_names: Vec<String>,
    /// Number of classes; none for values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Mean of each channel by which images are normalised; empty: as it is for photographs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f32>,
    /// Deviation of each channel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f32>,
    /// The shards of each split, in order.
    pub splits: BTreeMap<String, Vec<ShardEntry>>,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// Its file, from the folder of the manifest on.
    pub file: String,
    /// Samples it holds.
    pub samples: usize,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

impl ShardManifest {
    /// Reads the manifest in `folder`; nothing if there is none, or it is one of something else.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or of a version that is not known.
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Version {
            inflight_shards: u32,
        }

        let path = folder.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error(&path, e)),
        };
        let mut text = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut text).map_err(|e| io_error(&path, e))?;
        let damaged = |e: serde_json::Error| {
            Error::data(path.display(), "is damaged").hint("making the shards again").caused_by(e)
        };
        let version = match serde_json::from_slice::<Version>(&text) {
            Ok(version) => version,
            Err(e) if memmem::find(&text, KEY.as_bytes()).is_some() => return Err(damaged(e)),
            Err(_) => return Ok(None),
        };
        if version.inflight_shards != VERSION {
            let found = version.inflight_shards;
            let message = format!("found version {found} of shards, expected {VERSION}");
            return Err(Error::data(path.display(), message).hint("a newer inflight"));
        }
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// The manifest that shards in `folder` belong to: there, or one folder up; with the folder it lies in.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn find(folder: &Path) -> Result<Option<(Self, PathBuf)>> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let above = folder.join("..");
        for folder in [folder, &above] {
            if let Some(manifest) = Self::load(folder)? {
                return Ok(Some((manifest, folder.into())));
            }
        }
        Ok(None)
    }

    /// All shards, in order.
    pub fn shards(&self) -> impl Iterator<Item = &ShardEntry> {
        self.splits.values().flatten()
    }

    /// What it says about the shard at `path`.
    pub fn entry(&self, path: &Path) -> Option<&ShardEntry> {
        let (name, parent) = (path.file_name()?.to_str()?, path.parent()?);
        let split = parent.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let inside = format!("{split}/{name}");
        self.shards().find(|shard| shard.file == inside || shard.file == name)
    }

    /// What is to be said of `source`, which these shards are: its own information, with the mean and deviation that stand
    /// here where its samples are bytes of as many channels.
    pub(crate) fn info(&self, source: &dyn Source) -> SourceInfo {
        let (info, spec) = (source.info().clone(), source.spec());
        let channels = spec.input_shape.first().copied();
        let is_known = [&self.mean, &self.std].iter().all(|list| Some(list.len()) == channels);
        match is_known && spec.input_dtype == DType::U8 {
            true => SourceInfo { mean: self.mean.clone(), std: self.std.clone(), ..info },
            false => info,
        }
    }

    /// Checks that every shard is there, in `folder`, with its length.
    ///
    /// # Errors
    /// Naming the first shard that is not.
    pub fn check_lengths(&self, folder: &Path) -> Result<()> {
        self.shards().try_for_each(|shard| shard.check_length(folder))
    }

    /// Reads every shard and checks its hash; `done` is told the bytes of each that was right.
    ///
    /// # Errors
    /// Naming the first shard that is missing or was changed.
    pub fn verify(&self, folder: &Path, done: &(dyn Fn(u64) + Sync)) -> Result<()> {
        use rayon::prelude::*;
        let all: Vec<&ShardEntry> = self.shards().collect();
        let checked: Vec<Result<()>> = all
            .into_par_iter()
            .map(|shard| shard.verify(folder).inspect(|()| done(shard.bytes)))
            .collect();
        checked.into_iter().collect()
    }
}

impl ShardEntry {
    /// Checks that the shard is there with its length.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_length(&self, folder: &Path) -> Result<()> {
        let path = folder.join(&self.file);
        let found = std::fs::metadata(&path).map_err(|e| io_error(&path, e))?.len();
        if found == self.bytes {
            return Ok(());
        }
        let message = format!("found {found} bytes, expected the {} that {FILE} says", self.bytes);
        Err(Error::data(path.display(), message).hint("converting or copying it again"))
    }

    /// Checks length and hash.
    ///
    /// # Errors
    /// When the shard is missing, or another than the manifest says.
    pub fn verify(&self, folder: &Path) -> Result<()> {
        self.check_length(folder)?;
        let path = folder.join(&self.file);
        let found = sha256_of(&path).map_err(|e| io_error(&path, e))?;
        if found == self.sha256 {
            return Ok(());
        }
        let message = format!("found sha256 {found}, expected {} of {FILE}", self.sha256);
        Err(Error::data(path.display(), message).hint("converting or copying it again"))
    }
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn sha256_of(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 17]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
