//! What the pages of a Parquet file claim, held against the bytes they have before the reader takes memory for it: `parquet`
//! reserves what the heads of pages say of their size and of a dictionary's values, and a process that cannot have so much ends
//! there. Heads are Thrift's compact protocol, `PageHeader` of `parquet.thrift`.

use std::path::Path;

use parquet::basic::{Compression, Type};
use parquet::file::metadata::ColumnChunkMetaData;

use crate::error::{Error, Result};
use crate::source::blob::{Blob, LocalFile};
use crate::source::file::unpack_bytes_max;

/// Bytes that are looked at for a head at first; statistics may make one longer.
const HEAD_BYTES: u64 = 512;

/// How deep what is skipped may nest.
const DEPTH_MAX: usize = 8;

/// Checks the pages of a column of a row group. What is damaged in another way is left to the reader.
///
/// # Errors
/// When a page claims more than it can hold.
pub(super) fn check(file: &LocalFile, path: &Path, column: &ColumnChunkMetaData) -> Result<()> {
    let (mut at, len) = column.byte_range();
    let end = at.saturating_add(len).min(file.len());
    let refuse = |at, claimed: String, most: u64| {
        let message = format!("claims {claimed} at byte {at}, expected at most {most}");
        Err(Error::data(path.display(), message).hint("writing it again"))
    };
    while let Some(head) = head(file, at, end)? {
        let body_at = at + head.bytes;
        let packed = u64::try_from(head.packed).unwrap_or(0).min(end - body_at);
        let most = match column.compression() {
            Compression::UNCOMPRESSED => packed,
            _ => unpack_bytes_max(packed),
        };
        let unpacked = u64::try_from(head.unpacked).unwrap_or(0);
        if unpacked > most {
            return refuse(at, format!("a page of {unpacked} bytes"), most);
        }
        let most = unpacked / value_bytes_min(column);
        match head.dictionary.map(u64::try_from) {
            Some(Ok(values)) if values > most => {
                return refuse(at, format!("a dictionary of {values} values"), most);
            }
            _ => at = body_at + packed,
        }
    }
    Ok(())
}

/// Bytes that a value of a column takes at least where it is written out.
fn value_bytes_min(column: &ColumnChunkMetaData) -> u64 {
    match column.column_type() {
        Type::BOOLEAN => 1,
        Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        Type::FIXED_LEN_BYTE_ARRAY => {
            u64::try_from(column.column_descr().type_length()).unwrap_or(0).max(1)
        }
    }
}

/// What the head of a page says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    /// Length of the head itself.
    bytes: u64,
    unpacked: i64,
    packed: i64,
    /// Values of the dictionary, if it is one.
    dictionary: Option<i64>,
}

/// The head at `at`; none at the end, or where there is no head.
fn head(file: &LocalFile, at: u64, end: u64) -> Result<Option<Head>> {
    let (mut bytes, mut len) = (Vec::new(), HEAD_BYTES);
    loop {
        let left = end.saturating_sub(at);
        file.read_at(at.min(end), len.min(left) as usize, &mut bytes)?;
        match parse(&bytes) {
            None if len < left => len *= 8,
            found => return Ok(found),
        }
    }
}

/// The head at the start of `bytes`, if all of it is there.
fn parse(bytes: &[u8]) -> Option<Head> {
    let (mut head, mut compact) = (Head::default(), Compact(bytes));
    let mut field = 0;
    while let Some(kind) = compact.field(&mut field)? {
        match (field, kind) {
            (2, Compact::I32) => head.unpacked = compact.integer()?,
            (3, Compact::I32) => head.packed = compact.integer()?,
            (7, Compact::STRUCT) => {
                let mut field = 0;
                while let Some(kind) = compact.field(&mut field)? {
                    match (field, kind) {
                        (1, Compact::I32) => head.dictionary = Some(compact.integer()?),
                        _ => compact.skip(kind, 1)?,
                    }
                }
            }
            _ => compact.skip(kind, 1)?,
        }
    }
    head.bytes = (bytes.len() - compact.0.len()) as u64;
    Some(head)
}

/// Thrift's compact protocol: what is left to be read.
struct Compact<'a>(&'a [u8]);

impl Compact<'_> {
    const I32: u8 = 5;
    const STRUCT: u8 = 12;

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A number whose sign is its last bit.
    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn advance(&mut self, bytes: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(bytes).ok()?..)?;
        Some(())
    }

    /// The kind of the next field, whose number goes into `field`; `Some(None)` at the end of a struct.
    fn field(&mut self, field: &mut i64) -> Option<Option<u8>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        *field = match head >> 4 {
            0 => self.integer()?,
            step => *field + i64::from(step),
        };
        Some(Some(head & 0xf))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            // A truth is in its kind.
            1 | 2 => Some(()),
            3 => self.advance(1),
            4..=6 => self.varint().map(drop),
            7 => self.advance(8),
            8 => {
                let bytes = self.varint()?;
                self.advance(bytes)
            }
            _ if depth == DEPTH_MAX => None,
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                (0..count).try_for_each(|_| self.skip_element(head & 0xf, depth + 1))
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.skip_element(kinds >> 4, depth + 1)?;
                    self.skip_element(kinds & 0xf, depth + 1)
                })
            }
            Self::STRUCT => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            _ => None,
        }
    }

    /// As [`skip`](Self::skip), of an element of a list, in which a truth takes a byte.
    fn skip_element(&mut self, kind: u8, depth: usize) -> Option<()> {
        if kind == 1 || kind == 2 { self.advance(1) } else { self.skip(kind, depth) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_its_sizes_whatever_else_is_in_it() {
        // Kind 2 (a dictionary), sizes 48 and 40, a checksum, a dictionary of 12 values in encoding 0 that is sorted.
        let mut bytes =
            vec![0x15, 4, 0x15, 96, 0x15, 80, 0x15, 9, 0x3c, 0x15, 24, 0x15, 0, 0x11, 0, 0];
        let head = Head { bytes: 16, unpacked: 48, packed: 40, dictionary: Some(12) };
        assert_eq!(parse(&bytes), Some(head));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), None, "cut at {cut}");
        }
        // A page of data: with lists, a map, a text and a number, the last two in fields with numbers of their own.
        bytes = vec![0x15, 0, 0x15, 0xfe, 1, 0x15, 2, 0x2c, 0x19, 0x25, 1, 2];
        bytes.extend([0x1b, 1, 0x85, 2, b'a', b'b', 8, 0x19, 0x12, 1, 0]);
        bytes.extend([0x08, 40, 1, b'x', 0x17, 1, 2, 3, 4, 5, 6, 7, 8, 0, 99]);
        let head = Head { bytes: 37, unpacked: 127, packed: 1, dictionary: None };
        assert_eq!(parse(&bytes), Some(head));
    }

    #[test]
    fn what_nests_without_end_is_no_head() {
        assert_eq!(parse(&[0x5c; 64]), None);
        assert_eq!(parse(&[0xff; 64]), None);
    }
}
