//! `manifest.json`: what a checkpoint is, and a hash of each of its files and of itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::durable::{self, NotRead};
use crate::error::{Error, Result};
use crate::source::shard_manifest::hex;
use crate::train::book::Progress;

/// Version of the layout of a checkpoint. Raised when an older version of this crate could not read it.
pub const FORMAT: u32 = 1;

pub(super) const FILE: &str = "manifest.json";

/// Far above what any model needs: a row is about 100 bytes, and a model has some thousand tensors.
const BYTES_MAX: u64 = 64 << 20;

/// What a checkpoint is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout, [`FORMAT`].
    pub format: u32,
    /// Version of this crate that wrote it.
    pub version: String,
    /// Steps applied.
    pub step: u64,
    /// The run's seed.
    pub seed: u64,
    /// SHA-256 of the run's `config.toml`, where it has one.
    pub config_sha256: Option<String>,
    /// How far the run had come.
    pub progress: Progress,
    /// Size and hash of each file beside this one.
    pub files: BTreeMap<String, FileEntry>,
    /// All tensors, in the order of their files.
    pub tensors: Vec<TensorEntry>,
    /// SHA-256 of this file with zeros in the place of these 64 digits. The last key, so that it can be
    /// found in the text.
    pub sha256: String,
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Size in bytes.
    pub bytes: u64,
    /// Hash of the whole file.
    pub sha256: String,
}

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The file it is in.
    pub file: String,
}

/// What a manifest of any version has.
#[derive(Deserialize)]
struct AnyVersion {
    format: u32,
    #[serde(default)]
    version: String,
}

const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Manifest {
    /// The text of the file, sealed by its own hash, and known to be readable: what is written is all that there will be
    /// of a run.
    pub(super) fn seal(mut self) -> Result<Vec<u8>> {
        self.sha256 = NO_HASH.to_string();
        let mut text = serde_json::to_string_pretty(&self)
            .map_err(|cause| Error::checkpoint(FILE, format!("cannot be serialised: {cause}")))?;
        let hash = sha256(text.as_bytes());
        let at = text.rfind(NO_HASH).expect("the last key was just written");
        text.replace_range(at..at + hash.len(), &hash);
        Self::parse(Path::new(FILE), text.as_bytes()).map_err(Unread::into_error)?;
        Ok(text.into_bytes())
    }

    /// Reads the manifest of the checkpoint in `folder` and checks its own hash.
    ///
    /// # Errors
    /// When it is missing, damaged, of another version, or cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Self, Unread> {
        let path = folder.join(FILE);
        let bytes = durable::try_read_file(&path, BYTES_MAX)?;
        Self::parse(&path, &bytes)
    }

    /// Reads the text of a manifest and checks its own hash; `path` stands in errors.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Unread> {
        let damaged = |what: String| Unread::Damaged(Error::checkpoint(path.display(), what));
        let any: AnyVersion = serde_json::from_slice(bytes)
            .map_err(|cause| damaged(format!("is damaged: {cause}")))?;
        if any.format != FORMAT {
            let found = any.format;
            let message = format!(
                "has format {found}, written by inflight {}; expected {FORMAT}",
                any.version
            );
            return Err(Unread::Foreign(
                Error::checkpoint(path.display(), message).hint("the version that wrote it"),
            ));
        }
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|cause| damaged(format!("is damaged: {cause}")))?;
        let text = String::from_utf8_lossy(bytes);
        let sealed = (manifest.sha256.len() == NO_HASH.len())
            .then(|| text.rfind(&manifest.sha256))
            .flatten()
            .map(|at| [&text[..at], NO_HASH, &text[at + NO_HASH.len()..]].concat());
        match sealed {
            Some(sealed) if sha256(sealed.as_bytes()) == manifest.sha256 => Ok(manifest),
            _ => Err(damaged("is damaged: its hash does not match".into())),
        }
    }
}

/// Why a checkpoint cannot be read.
#[derive(Clone, Debug)]
pub enum Unread {
    /// Cut short, changed or missing: an older checkpoint can take its place.
    Damaged(Error),
    /// Whole, but written by another version: nothing should silently take its place.
    Foreign(Error),
    /// The system refuses to read it now, and it may be whole: nothing should silently take its place.
    Refused(Error),
}

impl Unread {
    /// The error, where the difference does not matter.
    pub fn error(&self) -> &Error {
        match self {
            Self::Damaged(error) | Self::Foreign(error) | Self::Refused(error) => error,
        }
    }

    /// As [`Unread::error`].
    pub fn into_error(self) -> Error {
        match self {
            Self::Damaged(error) | Self::Foreign(error) | Self::Refused(error) => error,
        }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl From<NotRead> for Unread {
    fn from(not_read: NotRead) -> Self {
        match not_read {
            NotRead::Wrong(error) => Self::Damaged(error),
            NotRead::Refused(error) => Self::Refused(
                error.hint("again once it can be read, or moving the checkpoint out of the way"),
            ),
        }
    }
}

/// SHA-256 as 64 hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
