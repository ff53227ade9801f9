//! What a Parquet page of texts claims whose lengths are written as differences, held against the page's values: `parquet` takes
//! memory for as many lengths as the differences say there are. The encodings are `DELTA_LENGTH_BYTE_ARRAY` and
//! `DELTA_BYTE_ARRAY` of <https://parquet.apache.org/docs/file-format/data-pages/encodings/>.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use super::thrift::{Compact, Fault};
use crate::error::{Error, Result};
use crate::source::file::io_error;

/// Checks all pages of a column without repetitions in a group of `rows`; they are unpacked one by one.
///
/// # Errors
/// When a page claims more lengths than it has values, or more values than there are rows, or is damaged.
pub(super) fn check(path: &Path, column: &ColumnChunkMetaData, rows: usize) -> Result<()> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    let damaged = || Error::data(path.display(), "is damaged, cut short or no Parquet");
    let mut pages = SerializedPageReader::new(Arc::new(file), column, rows, None)
        .map_err(|e| damaged().caused_by(e))?;
    let has_levels = column.column_descr().max_def_level() > 0;
    while let Some(page) = pages.get_next_page().map_err(|e| damaged().caused_by(e))? {
        let lists = match page.encoding() {
            Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
            Encoding::DELTA_BYTE_ARRAY => 2,
            _ => continue,
        };
        let values = u64::from(page.num_values());
        let found = lengths(values_of(&page, has_levels).ok_or_else(damaged)?, lists, values);
        let found = found.map_err(|_| damaged())?;
        if values > rows as u64 || found > values {
            let message = format!(
                "claims {found} lengths in a page of {values} values and a group of {rows} rows"
            );
            return Err(Error::data(path.display(), message).hint("writing it again"));
        }
    }
    Ok(())
}

/// The values of a page, behind what says which of them are missing.
fn values_of(page: &Page, has_levels: bool) -> Option<&[u8]> {
    let bytes = page.buffer();
    let levels = match *page {
        Page::DataPage { num_values, def_level_encoding, .. } if has_levels => {
            match def_level_encoding {
                Encoding::RLE => 4 + u32::from_le_bytes(*bytes.first_chunk()?) as usize,
                // A bit a value.
                _ => (num_values as usize).div_ceil(8),
            }
        }
        Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
            (def_levels_byte_len as usize).checked_add(rep_levels_byte_len as usize)?
        }
        _ => 0,
    };
    bytes.get(levels..)
}

/// How many numbers the last of so many `lists` of differences says it has, or an earlier one that has more than `most`.
fn lengths(bytes: &[u8], lists: usize, most: u64) -> Result<u64, Fault> {
    let mut compact = Compact::new(bytes);
    let mut list = 1;
    loop {
        let block = compact.varint()?;
        let parts = compact.varint()?;
        let count = compact.varint()?;
        let _first = compact.varint()?;
        if list == lists || count > most {
            return Ok(count);
        }
        let part = block.checked_div(parts).filter(|&part| part > 0).ok_or(Fault::Strange)?;
        pass(&mut compact, parts, part, count.saturating_sub(1))?;
        list += 1;
    }
}

/// Passes over blocks with `left` differences, of `parts` parts each with `part` of them.
fn pass(compact: &mut Compact<'_>, parts: u64, part: u64, mut left: u64) -> Result<(), Fault> {
    while left > 0 {
        let _least = compact.varint()?;
        let widths = compact.take(parts)?;
        let mut bytes: u64 = 0;
        for &width in widths {
            // Parts behind the last difference have widths and no bits.
            let bits = if left > 0 { u64::from(width).saturating_mul(part) } else { 0 };
            bytes = bytes.saturating_add(bits / 8);
            left = left.saturating_sub(part);
        }
        compact.take(bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 5 numbers in blocks of 128 and 4 parts, the first of which has 3 bits each.
    fn list() -> Vec<u8> {
        [vec![0x80, 1, 4, 5, 2, 1, 3, 9, 9, 9], vec![0xaa; 12]].concat()
    }

    #[test]
    fn a_list_tells_its_length_and_where_the_next_one_begins() {
        assert_eq!(lengths(&list(), 1, 5), Ok(5));
        assert_eq!(lengths(&list(), 2, 4), Ok(5));
        let second = [0x80, 1, 4, 0x80, 0x80, 0x80, 0x80, 0x40, 0];
        assert_eq!(lengths(&[&list()[..], &second].concat(), 2, 5), Ok(1 << 34));
        // One of a single number has no block.
        assert_eq!(lengths(&[&[0x80, 1, 4, 1, 8], &second[..]].concat(), 2, 5), Ok(1 << 34));
        for cut in 0..list().len() {
            assert_eq!(lengths(&list()[..cut], 2, 5), Err(Fault::Short), "cut at {cut}");
        }
        for strange in [[0x80, 1, 0, 5, 2, 0], [0, 4, 5, 2, 0, 0]] {
            assert_eq!(lengths(&strange, 2, 5), Err(Fault::Strange), "{strange:?}");
        }
    }
}
