//! What a Parquet column says of the lengths of its texts. Where they are written as differences, `parquet` takes memory for as many
//! as these say there are; a text in a dictionary can stand for any number of rows. The encodings are those of
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/>.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use super::pages::damaged;
use super::thrift::{Compact, Fault};
use crate::error::{Error, Result};
use crate::source::file::io_error;

/// The pages of a column, unpacked one by one, whose heads were checked.
pub(super) struct Unpacked<'a> {
    path: &'a Path,
    column: &'a ColumnChunkMetaData,
    rows: usize,
    reader: SerializedPageReader<File>,
}

impl<'a> Unpacked<'a> {
    /// Those of a column without repetitions in a group of `rows`.
    pub fn open(path: &'a Path, column: &'a ColumnChunkMetaData, rows: usize) -> Result<Self> {
        let file = File::open(path).map_err(|e| io_error(path, e))?;
        let reader = SerializedPageReader::new(Arc::new(file), column, rows, None);
        let reader = reader.map_err(|e| damaged(path).caused_by(e))?;
        Ok(Self { path, column, rows, reader })
    }

    fn next(&mut self) -> Result<Option<Page>> {
        self.reader.get_next_page().map_err(|e| damaged(self.path).caused_by(e))
    }

    /// Bytes of the longest text in the dictionary that the column begins with; 0 without one.
    ///
    /// # Errors
    /// When the dictionary is damaged.
    pub fn longest_in_dictionary(mut self) -> Result<u64> {
        match self.next()? {
            Some(Page::DictionaryPage { buf, .. }) => {
                longest(&buf).ok_or_else(|| damaged(self.path))
            }
            _ => Ok(0),
        }
    }

    /// Checks lengths that are written as differences.
    ///
    /// # Errors
    /// When a page claims more lengths than it has values, or more values than there are rows, or is damaged.
    pub fn check_deltas(mut self) -> Result<()> {
        let has_levels = self.column.column_descr().max_def_level() > 0;
        while let Some(page) = self.next()? {
            check_page(self.path, &page, has_levels, self.rows as u64)?;
        }
        Ok(())
    }
}

/// Of texts with their lengths, of four bytes, before them.
fn longest(mut bytes: &[u8]) -> Option<u64> {
    let mut longest = 0;
    while let Some((&len, rest)) = bytes.split_first_chunk() {
        let len = u32::from_le_bytes(len);
        bytes = rest.get(len as usize..)?;
        longest = longest.max(len.into());
    }
    Some(longest)
}

fn check_page(path: &Path, page: &Page, has_levels: bool, rows: u64) -> Result<()> {
    let lists = match page.encoding() {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
        Encoding::DELTA_BYTE_ARRAY => 2,
        _ => return Ok(()),
    };
    let values = u64::from(page.num_values());
    let bytes = values_of(page, has_levels).ok_or_else(|| damaged(path))?;
    let found = lengths(bytes, lists, values).map_err(|_| damaged(path))?;
    if values > rows || found > values {
        let message = format!(
            "claims {found} lengths in a page of {values} values and a group of {rows} rows"
        );
        return Err(Error::data(path.display(), message).hint("writing it again"));
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

    #[test]
    fn the_longest_text_counts() {
        assert_eq!(longest(&[1, 0, 0, 0, 9, 3, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0]), Some(3));
        assert_eq!(longest(&[]), Some(0));
        assert_eq!(longest(&[2, 0, 0, 0, 9]), None);
        assert_eq!(longest(&[0xff; 6]), None);
    }

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
