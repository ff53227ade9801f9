//! What the pages of a Parquet file claim, held against the bytes they have before the reader takes memory for it: `parquet`
//! reserves what the heads of pages say of their size and of a dictionary's values, and a process that cannot have so much ends
//! there. A head is a `PageHeader` of `parquet.thrift`; one that could be read in two ways is refused.

use std::path::Path;

use parquet::basic::{Compression, Type};
use parquet::file::metadata::ColumnChunkMetaData;

use super::claims::refusal;
use super::footer::STATISTICS;
use super::thrift::Shape::{Number, Struct, Truth};
use super::thrift::{Compact, Fault, Shape};
use crate::error::{Error, Result};
use crate::source::blob::{Blob, LocalFile};
use crate::source::file::unpack_bytes_max;

/// Bytes that are looked at for a head at first; statistics may make one longer.
const HEAD_BYTES: u64 = 512;

/// What is said of a file that cannot be read as Parquet.
pub(super) fn damaged(path: &Path) -> Error {
    Error::data(path.display(), "is damaged, cut short or no Parquet")
}

/// What is known of the pages of a column.
pub(super) struct Pages {
    /// The most bytes that a value can have that is not in its page as a whole: one of a fixed length, which may be missing, or one
    /// that begins as the one before.
    pub value_bytes: u64,
    /// Whether a dictionary of texts comes first.
    pub has_dictionary: bool,
    /// Whether lengths are written as differences.
    pub has_deltas: bool,
}

/// Checks the pages of a column of a row group. What is damaged in another way is left to the reader.
///
/// # Errors
/// When a page claims more than it can hold, all of them more than the file can, or a head makes no sense.
pub(super) fn check(file: &LocalFile, path: &Path, column: &ColumnChunkMetaData) -> Result<Pages> {
    let (mut at, len) = column.byte_range();
    let end = at.saturating_add(len).min(file.len());
    let start = at;
    let value_bytes = value_bytes_min(column);
    let mut pages = Pages { value_bytes, has_dictionary: false, has_deltas: false };
    let (mut sum, sum_most) = (0u64, unpack_bytes_max(file.len()));
    if value_bytes > sum_most {
        return Err(refusal(path, at, format_args!("values of {value_bytes} bytes"), sum_most));
    }
    while at < end {
        let Some(head) = head(file, at, end)? else {
            let message = format!("found no head of a page at byte {at}, expected one");
            return Err(Error::data(path.display(), message).hint("writing it again"));
        };
        let body_at = at + head.bytes;
        let packed = head.packed.min(end - body_at);
        let most = match column.compression() {
            Compression::UNCOMPRESSED => packed,
            _ => unpack_bytes_max(packed),
        };
        if head.unpacked > most {
            let claimed = format_args!("a page of {} bytes", head.unpacked);
            return Err(refusal(path, at, claimed, most));
        }
        let most = head.unpacked / value_bytes;
        if let Some(values) = head.dictionary.filter(|&values| values > most) {
            let claimed = format_args!("a dictionary of {values} values");
            return Err(refusal(path, at, claimed, most));
        }
        sum = sum.saturating_add(head.unpacked);
        if sum > sum_most {
            return Err(refusal(path, at, format_args!("pages of {sum} bytes"), sum_most));
        }
        if head.dictionary.is_some() && at > start {
            let message = format!("found a dictionary behind other pages at byte {at}");
            return Err(Error::data(path.display(), message).hint("writing it again"));
        }
        if column.column_type() == Type::BYTE_ARRAY {
            pages.has_dictionary |= head.dictionary.is_some();
            if head.has_deltas {
                pages.value_bytes = pages.value_bytes.max(head.unpacked);
            }
        }
        pages.has_deltas |= head.has_deltas;
        at = body_at + packed;
    }
    Ok(pages)
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
    unpacked: u64,
    packed: u64,
    /// Values of the dictionary, if it is one.
    dictionary: Option<u64>,
    /// Whether lengths are written as differences.
    has_deltas: bool,
}

/// `DELTA_LENGTH_BYTE_ARRAY` and `DELTA_BYTE_ARRAY`.
const DELTAS: [u64; 2] = [6, 7];

/// The head at `at`, if there is one.
fn head(file: &LocalFile, at: u64, end: u64) -> Result<Option<Head>> {
    let (mut bytes, mut len) = (Vec::new(), HEAD_BYTES);
    loop {
        file.read_at(at, len.min(end - at) as usize, &mut bytes)?;
        match parse(&bytes) {
            Err(Fault::Short) if len < end - at => len *= 8,
            found => return Ok(found.ok()),
        }
    }
}

const PAGE_HEADER: &[(i16, Shape)] = &[
    (1, Number),
    (2, Number),
    (3, Number),
    (4, Number),
    (5, Struct(DATA_PAGE_HEADER)),
    (6, Struct(&[])),
    (7, Struct(&[(1, Number), (2, Number), (3, Truth)])),
    (8, Struct(DATA_PAGE_HEADER_V2)),
];

const DATA_PAGE_HEADER: &[(i16, Shape)] =
    &[(1, Number), (2, Number), (3, Number), (4, Number), (5, Struct(STATISTICS))];

const DATA_PAGE_HEADER_V2: &[(i16, Shape)] = &[
    (1, Number),
    (2, Number),
    (3, Number),
    (4, Number),
    (5, Number),
    (6, Number),
    (7, Truth),
    (8, Struct(STATISTICS)),
];

/// The head at the start of `bytes`.
fn parse(bytes: &[u8]) -> Result<Head, Fault> {
    Compact::new(bytes).hold(PAGE_HEADER)?;
    let (mut head, mut compact) = (Head::default(), Compact::new(bytes));
    let mut field = 0;
    while let Some(kind) = compact.field(&mut field)? {
        match field {
            2 => head.unpacked = compact.size()?,
            3 => head.packed = compact.size()?,
            7 => head.dictionary = number(&mut compact, 1)?,
            5 | 8 => {
                let encoding = number(&mut compact, if field == 5 { 2 } else { 4 })?;
                head.has_deltas |= encoding.is_some_and(|encoding| DELTAS.contains(&encoding));
            }
            _ => compact.skip(kind)?,
        }
    }
    head.bytes = (bytes.len() - compact.len()) as u64;
    Ok(head)
}

/// The number in field `wanted` of the head of a dictionary or a page of data.
fn number(compact: &mut Compact<'_>, wanted: i16) -> Result<Option<u64>, Fault> {
    let (mut number, mut field) = (None, 0);
    while let Some(kind) = compact.field(&mut field)? {
        if field == wanted {
            number = Some(compact.size()?);
        } else {
            compact.skip(kind)?;
        }
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_its_sizes_whatever_else_is_in_it() {
        // Kind 2 (a dictionary), sizes 48 and 40, a checksum, a dictionary of 12 values in encoding 0 that is sorted.
        let bytes = [0x15, 4, 0x15, 96, 0x15, 80, 0x15, 9, 0x3c, 0x15, 24, 0x15, 0, 0x11, 0, 0];
        let head =
            Head { bytes: 16, unpacked: 48, packed: 40, dictionary: Some(12), has_deltas: false };
        assert_eq!(parse(&bytes), Ok(head));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Err(Fault::Short), "cut at {cut}");
        }
        // A page of data with statistics, and fields of later versions: a number and a text with numbers of their own.
        let mut bytes = vec![0x15, 0, 0x15, 0xfe, 1, 0x15, 2];
        bytes.extend([0x2c, 0x15, 6, 0x4c, 0x28, 2, b'a', b'b', 0x16, 1, 0, 0]);
        bytes.extend([0x08, 40, 1, b'x', 0x17, 1, 2, 3, 4, 5, 6, 7, 8, 0, 99]);
        let head =
            Head { bytes: 33, unpacked: 127, packed: 1, dictionary: None, has_deltas: false };
        assert_eq!(parse(&bytes), Ok(head));
    }

    #[test]
    fn a_page_of_data_tells_how_its_lengths_are_written() {
        // Three values in an encoding, in the head of each version.
        let first =
            |encoding: u8| [0x15, 0, 0x15, 8, 0x15, 8, 0x2c, 0x15, 6, 0x15, 2 * encoding, 0, 0];
        let second = |encoding: u8| {
            let values = [0x15, 6, 0x15, 0, 0x15, 6, 0x15, 2 * encoding, 0, 0];
            [&[0x15, 6, 0x15, 8, 0x15, 8, 0x5c][..], &values].concat()
        };
        for encoding in 0..9 {
            let found = [parse(&first(encoding)), parse(&second(encoding))];
            let expected = [6, 7].contains(&encoding);
            let found = found.map(|head| head.expect("a head").has_deltas);
            assert_eq!(found, [expected; 2], "{encoding}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_head() {
        let strange: [&[u8]; 8] = [
            // A size of 64 bits, a text in its place, one below zero, a truth in place of a checksum.
            &[0x25, 0x95, 0x95, 0x95, 0x95, 0x95, 0x95, 0x95, 0x95, 0x95, 4, 0],
            &[0x28, 1, b'a', 0],
            &[0x25, 1, 0],
            &[0x41, 0],
            // An end with a number, a field beyond all numbers, a list, structs without end.
            &[0x10],
            &[0x05, 0x80, 0x80, 8, 0],
            &[0x99, 0x21, 1, 2, 0],
            &[0x5c; 64],
        ];
        for bytes in strange {
            assert_eq!(parse(bytes), Err(Fault::Strange), "{bytes:02x?}");
        }
    }
}
