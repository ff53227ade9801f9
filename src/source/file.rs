//! Reading whole files into memory with every length known before anything is allocated.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

/// Compressed data may unpack to this many times its size. Real images and arrays compress less than
/// 100 times; DEFLATE allows up to 1032 times, which is what bombs use.
pub(crate) const UNPACK_RATIO_MAX: u64 = 200;

/// Compressed data may always unpack to this much: small files of constant labels compress better.
pub(crate) const UNPACK_BYTES_FREE: u64 = 64 << 20;

/// The most that `compressed` bytes may claim to unpack to.
pub(crate) fn unpack_bytes_max(compressed: u64) -> u64 {
    compressed.saturating_mul(UNPACK_RATIO_MAX).max(UNPACK_BYTES_FREE)
}

/// An error of the file system, with what to try.
pub(crate) fn io_error(path: &Path, error: std::io::Error) -> Error {
    let found = match error.kind() {
        ErrorKind::NotFound => Error::data(path.display(), "not found"),
        ErrorKind::PermissionDenied => {
            Error::data(path.display(), "cannot be read").hint("giving read permission")
        }
        _ => Error::data(path.display(), "cannot be read"),
    };
    found.caused_by(error)
}

/// A buffer of `bytes` zeros.
///
/// # Errors
/// When there is not enough memory.
pub(crate) fn zeroed(path: &Path, bytes: usize) -> Result<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(bytes).map_err(|e| {
        Error::data(path.display(), format!("needs {bytes} bytes of memory, more than there is"))
            .caused_by(e)
    })?;
    buffer.resize(bytes, 0);
    Ok(buffer)
}

/// A file open for reading, unpacked on the way if it is gzip by content.
pub(crate) struct Input {
    reader: Box<dyn Read>,
    /// Size on disk.
    pub file_bytes: u64,
    /// Whether it is gzip.
    pub compressed: bool,
}

impl Input {
    /// Opens `path` and looks at its first two bytes.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| io_error(path, e))?;
        let meta = file.metadata().map_err(|e| io_error(path, e))?;
        if meta.is_dir() {
            return Err(Error::data(path.display(), "is a folder, expected a file"));
        }
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let start = std::io::BufRead::fill_buf(&mut reader).map_err(|e| io_error(path, e))?;
        let compressed = start.starts_with(&[0x1f, 0x8b]);
        let reader: Box<dyn Read> =
            if compressed { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) };
        Ok(Self { reader, file_bytes: meta.len(), compressed })
    }

    /// The most that this file may claim to hold.
    pub fn claim_bytes_max(&self) -> u64 {
        if self.compressed { unpack_bytes_max(self.file_bytes) } else { self.file_bytes }
    }

    /// Appends at most `bytes` to `buffer`, which grows with what is there; fewer mean the end of the data. Unlike in
    /// [`fill`](Self::fill), a gzip stream that is cut is an error: nothing says how long the data are.
    pub fn append(&mut self, path: &Path, buffer: &mut Vec<u8>, bytes: usize) -> Result<usize> {
        self.reader.by_ref().take(bytes as u64).read_to_end(buffer).map_err(|error| {
            if !self.compressed {
                return io_error(path, error);
            }
            Error::data(path.display(), "is damaged or cut short: not valid gzip data")
                .hint("fetching it again")
                .caused_by(error)
        })
    }

    /// Fills as much of `buffer` as there is; fewer bytes than asked for mean the end of the data.
    pub fn fill(&mut self, path: &Path, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // A cut gzip stream: what came before the cut is what there is.
                Err(e) if self.compressed && e.kind() == ErrorKind::UnexpectedEof => break,
                Err(e) if self.compressed => {
                    return Err(Error::data(path.display(), "is damaged: not valid gzip data")
                        .hint("fetching it again")
                        .caused_by(e));
                }
                Err(e) => return Err(io_error(path, e)),
            }
        }
        Ok(filled)
    }

    /// Checks that nothing follows; for gzip this also checks length and checksum of what was read.
    pub fn expect_end(&mut self, path: &Path, expected: &str) -> Result<()> {
        let mut byte = [0];
        loop {
            return match self.reader.read(&mut byte) {
                Ok(0) => Ok(()),
                Ok(_) => Err(Error::data(
                    path.display(),
                    format!("found more bytes after its data, expected {expected}"),
                )
                .hint("fetching it again")),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if self.compressed => {
                    Err(Error::data(path.display(), "is damaged: not valid gzip data")
                        .hint("fetching it again")
                        .caused_by(e))
                }
                Err(e) => Err(io_error(path, e)),
            };
        }
    }
}
