//! A file that is hashed as it is written, and has its name only when all of it is on the disk.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::durable::{parent, sync_folder};
use crate::error::{Error, Result};
use crate::source::shard_manifest::hex;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 18;

/// The error of a file that cannot be written.
pub(super) fn unwritable(path: &Path) -> Error {
    Error::data(path.display(), "cannot be written").hint("a folder with space that can be written")
}

/// Passes on what is written, and counts and hashes it.
pub(super) struct Hashing {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Why writing a shard failed.
pub(super) enum Failure {
    /// A sample cannot be read or written in this format.
    Sample(Error),
    /// The disk is full or fails.
    Disk(std::io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sample(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Writes a file by `write` and gives it its name; returns its length and the SHA-256 of its bytes. Half a file that
/// an interrupted process left under the other name is written over.
///
/// # Errors
/// When `write` fails, or the disk is full or fails; nothing then has the name, and what was written is removed.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut Hashing) -> Result<(), Failure>,
) -> Result<(u64, String)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    let written = File::create(&part).map_err(Failure::Disk).and_then(|file| {
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut out = Hashing { file, hash: Sha256::new(), bytes: 0 };
        write(&mut out)?;
        let file = out.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        Ok((out.bytes, hex(&out.hash.finalize())))
    });
    let written = written.map_err(|failure| {
        // There is nobody to tell; another start writes over it.
        let _ = std::fs::remove_file(&part);
        match failure {
            Failure::Sample(error) => error,
            Failure::Disk(cause) => unwritable(path).caused_by(cause),
        }
    })?;
    sync_folder(parent(path)).map_err(|e| unwritable(path).caused_by(e))?;
    Ok(written)
}
