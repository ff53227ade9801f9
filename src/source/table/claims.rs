//! What an Arrow IPC file claims, held against its length before a reader takes memory for it: arrow-ipc reserves what
//! the blocks of a footer and the heads of packed buffers say, and a process that cannot have so much ends there.

use std::path::Path;

use arrow_ipc::reader::read_footer_length;
use arrow_ipc::{Block, CompressionType, RecordBatch};
use arrow_ipc::{root_as_footer_with_opts, root_as_message_with_opts};
use flatbuffers::{InvalidFlatbuffer, VerifierOptions};

use super::block::check_rows;
use super::head::Format;
use crate::error::{Error, Result};
use crate::source::blob::{Blob, LocalFile};
use crate::source::file::unpack_bytes_max;

/// Magic and length at the end of a file.
const TRAILER_BYTES: u64 = 10;
/// Before the length of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Bytes that a byte of an LZ4 block stands for at most: a length grows by 255 a byte.
const LZ4_BYTES_MAX: u64 = 256;
/// The same of Zstandard: a block of four bytes repeats one of them 128 KiB long.
const ZSTD_BYTES_MAX: u64 = 1 << 15;
/// A head may take this many times its length when everything that it points to is counted: names of fields may be shared, and
/// the table of a type is read for each of its fields.
const HEAD_RATIO_MAX: usize = 16;
/// What any head may take.
const HEAD_BYTES_FREE: usize = 1 << 16;

/// Checks all batches and dictionaries of a file. What is damaged in another way is left to the reader.
///
/// # Errors
/// When the file claims more than it can hold.
pub(super) fn check(path: &Path, format: Format) -> Result<()> {
    let mut file = Claims { file: LocalFile::new(path)?, path, columns: 1, rows: 0 };
    if format == Format::ArrowFile {
        file.check_blocks()?
    } else {
        file.check_stream()?
    }
    check_rows(path, file.file.len(), file.rows, file.columns)
}

/// How much a head of so many bytes may hold: parts of it may be pointed to from many places, and are read for each of them.
fn verifier(bytes: usize) -> VerifierOptions {
    let most = bytes.saturating_mul(HEAD_RATIO_MAX).saturating_add(HEAD_BYTES_FREE);
    VerifierOptions { max_apparent_size: most, ..VerifierOptions::default() }
}

/// What is said of a file that claims more than it can hold.
pub(super) fn refusal(path: &Path, at: u64, claimed: impl std::fmt::Display, most: u64) -> Error {
    let message = format!("claims {claimed} at byte {at}, expected at most {most}");
    Error::data(path.display(), message).hint("writing it again")
}

struct Claims<'a> {
    file: LocalFile,
    path: &'a Path,
    /// Columns of the schema.
    columns: usize,
    /// Rows of all batches so far.
    rows: u64,
}

impl Claims<'_> {
    fn damaged(&self) -> Error {
        Error::data(self.path.display(), "is damaged, cut short or no Arrow IPC")
    }

    /// What is said of a head that cannot be read, or would be more than its bytes.
    fn unreadable(&self, at: u64, bytes: usize, error: InvalidFlatbuffer) -> Error {
        match error {
            InvalidFlatbuffer::ApparentSizeTooLarge => {
                let most = verifier(bytes).max_apparent_size as u64;
                self.refuse(
                    at,
                    format_args!("parts that are more than a head of {bytes} bytes"),
                    most,
                )
            }
            _ => self.damaged(),
        }
    }

    fn refuse(&self, at: u64, claimed: impl std::fmt::Display, most: u64) -> Error {
        refusal(self.path, at, claimed, most)
    }

    /// The blocks that the footer of a file lists.
    fn check_blocks(&mut self) -> Result<()> {
        let Some(end) = self.file.len().checked_sub(TRAILER_BYTES) else { return Ok(()) };
        let mut bytes = Vec::new();
        self.file.read_at(end, TRAILER_BYTES as usize, &mut bytes)?;
        let trailer = bytes[..].try_into().ok().and_then(|bytes| read_footer_length(bytes).ok());
        let Some(len) = trailer else { return Ok(()) };
        let Some(start) = end.checked_sub(len as u64) else {
            return Err(self.refuse(end, format_args!("a footer of {len} bytes"), end));
        };
        self.file.read_at(start, len, &mut bytes)?;
        let footer = root_as_footer_with_opts(&verifier(len), &bytes);
        let footer = footer.map_err(|e| self.unreadable(start, len, e))?;
        let fields = footer.schema().and_then(|schema| schema.fields());
        self.columns = fields.map_or(0, |fields| fields.len());
        let mut sum = 0u64;
        for block in [footer.dictionaries(), footer.recordBatches()].into_iter().flatten().flatten()
        {
            sum = sum.saturating_add(self.check_block(block)?);
            if sum > self.file.len() {
                return Err(self.refuse(
                    start,
                    format_args!("blocks of {sum} bytes"),
                    self.file.len(),
                ));
            }
        }
        Ok(())
    }

    /// Checks a block; how many bytes it has.
    fn check_block(&mut self, block: &Block) -> Result<u64> {
        let sizes = [block.offset(), block.metaDataLength().into(), block.bodyLength()];
        let end = sizes
            .iter()
            .try_fold(0, |sum: u64, &size| sum.checked_add(u64::try_from(size).ok()?))
            .filter(|&end| end <= self.file.len());
        let [at, head, body] = sizes;
        if end.is_none() {
            let claimed = format!("a block of {head} and {body} bytes");
            return Err(self.refuse(at as u64, claimed, self.file.len()));
        }
        let (at, head) = (at as u64, head as u64);
        // The reader does not look at the length of the message, and takes what follows for it.
        let message = self.message(at)?.filter(|&(start, len)| start + len <= at + head);
        let Some((start, len)) = message else { return Err(self.damaged()) };
        self.check_message(start, len, at + head, body as u64)?;
        Ok(head + body as u64)
    }

    /// The messages of a stream, one after the other.
    fn check_stream(&mut self) -> Result<()> {
        let mut at = 0;
        while let Some((start, len)) = self.message(at)? {
            let body_at = start + len;
            let body_most = self.file.len() - body_at;
            let body = self.check_message(start, len, body_at, body_most)?;
            if body > body_most {
                return Err(self.damaged());
            }
            at = body_at + body;
        }
        Ok(())
    }

    /// Where the message behind the length at `at` begins, and how long it is; none at the end.
    fn message(&self, at: u64) -> Result<Option<(u64, u64)>> {
        let mut start = at;
        for _ in 0..2 {
            let Some(length) = self.few::<4>(start)? else { return Ok(None) };
            start += 4;
            if length != CONTINUATION {
                let len = u64::try_from(i32::from_le_bytes(length)).ok();
                let len = len.filter(|len| start + len <= self.file.len());
                let len = len.ok_or_else(|| self.damaged())?;
                return Ok(Some((start, len)).filter(|_| len > 0));
            }
        }
        Err(self.damaged())
    }

    fn few<const N: usize>(&self, at: u64) -> Result<Option<[u8; N]>> {
        if at.checked_add(N as u64).is_none_or(|end| end > self.file.len()) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.file.read_at(at, N, &mut bytes)?;
        Ok(bytes[..].try_into().ok())
    }

    /// Checks a message whose body is at `body_at` and no longer than `body_most`; how long it says that it is.
    fn check_message(&mut self, start: u64, len: u64, body_at: u64, body_most: u64) -> Result<u64> {
        let mut bytes = Vec::new();
        self.file.read_at(start, len as usize, &mut bytes)?;
        let message = root_as_message_with_opts(&verifier(bytes.len()), &bytes);
        let message = message.map_err(|e| self.unreadable(start, bytes.len(), e))?;
        if let Some(fields) = message.header_as_schema().and_then(|schema| schema.fields()) {
            self.columns = fields.len();
        }
        if let Some(batch) = message.header_as_record_batch() {
            self.rows = self.rows.saturating_add(u64::try_from(batch.length()).unwrap_or(0));
        }
        let dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
        if let Some(batch) = message.header_as_record_batch().or(dictionary) {
            self.check_batch(batch, body_at, body_most)?;
        }
        u64::try_from(message.bodyLength()).map_err(|e| self.damaged().caused_by(e))
    }

    fn check_batch(&self, batch: RecordBatch<'_>, body_at: u64, body_most: u64) -> Result<()> {
        let packed = batch.compression().map(|compression| match compression.codec() {
            CompressionType::LZ4_FRAME => LZ4_BYTES_MAX,
            _ => ZSTD_BYTES_MAX,
        });
        // Buffers lie beside each other in the body, and are not read twice.
        let (mut sum, mut unpacked, unpacked_most) =
            (0u64, 0u64, unpack_bytes_max(self.file.len()));
        for buffer in batch.buffers().into_iter().flatten() {
            let (Ok(offset), Ok(len)) =
                (u64::try_from(buffer.offset()), u64::try_from(buffer.length()))
            else {
                return Err(self.damaged());
            };
            sum = sum.saturating_add(len);
            if sum > body_most {
                return Err(self.refuse(
                    body_at,
                    format_args!("buffers of {sum} bytes"),
                    body_most,
                ));
            }
            let Some(ratio) = packed else { continue };
            if len < 8 {
                continue;
            }
            let at = body_at.saturating_add(offset);
            // The length when unpacked comes first; -1 stands for bytes that are not packed.
            let Some(claimed) = self.few::<8>(at)?.map(i64::from_le_bytes) else { continue };
            let most = len.min(body_most).saturating_mul(ratio);
            if claimed > 0 && claimed as u64 > most {
                return Err(self.refuse(at, format_args!("a buffer of {claimed} bytes"), most));
            }
            unpacked = unpacked.saturating_add(u64::try_from(claimed).unwrap_or(0));
            if unpacked > unpacked_most {
                let claimed = format_args!("buffers of {unpacked} bytes");
                return Err(self.refuse(body_at, claimed, unpacked_most));
            }
        }
        Ok(())
    }
}
