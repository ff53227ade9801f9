//! A table as it is in its file: all columns, each in the plainest type that holds all of its values.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;

use super::columns::{GROUP_ROWS, disk, properties};
use super::writer::{Failure, Hashing};
use crate::error::{Error, Result};
use crate::source::table::{self, Block, Format, Kind, Table, Wanted};

/// The rows of a text table with the fields as they are written.
pub(super) struct RawTable {
    table: Table,
    types: Vec<DataType>,
}

impl RawTable {
    /// Reads a table of text, which had so many rows when it was opened as a data set.
    ///
    /// # Errors
    /// When it cannot be read, has other rows now, or is in Parquet or Arrow already.
    pub fn open(path: &Path, header: bool, rows: usize) -> Result<Self> {
        let head = table::head(path, Some(header))?;
        if !matches!(head.format, Format::Delimited(_) | Format::JsonLines) {
            let message = "found a table that is read column by column already, expected text";
            return Err(Error::data(path.display(), message).hint("training from it as it is"));
        }
        let columns = head.columns.iter().enumerate();
        let wanted = columns.map(|(position, column)| Wanted {
            position,
            name: column.name.clone(),
            kind: Kind::Text,
        });
        // Text is always read whole, whatever bound there is on memory.
        let table = table::read(&head, wanted.collect(), usize::MAX)?;
        if table.rows() != rows {
            let found = table.rows();
            let message = format!("found {found} rows, expected the {rows} it was opened with");
            return Err(Error::data(path.display(), message).hint("starting again"));
        }
        let types = (0..table.columns.len()).map(|c| type_of(&table, c)).collect::<Result<_>>()?;
        Ok(Self { table, types })
    }

    fn schema(&self) -> Schema {
        let fields = self.table.columns.iter().zip(&self.types);
        Schema::new(
            fields
                .map(|(column, data_type)| Field::new(&column.name, data_type.clone(), true))
                .collect::<Vec<_>>(),
        )
    }

    /// Writes a shard: of each (place, row) the row.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn write(
        &self,
        out: &mut Hashing,
        rows: impl Iterator<Item = (usize, usize)>,
    ) -> Result<(), Failure> {
        let schema = Arc::new(self.schema());
        let properties = properties(&[]);
        let mut writer =
            ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(disk)?;
        let mut rows = rows.map(|(_, row)| row).peekable();
        while rows.peek().is_some() {
            let group: Vec<(Arc<Block>, usize)> = rows
                .by_ref()
                .take(GROUP_ROWS)
                .map(|row| {
                    let (block, row) = self.table.locate(row);
                    Ok((self.table.block(block)?, row))
                })
                .collect::<Result<_>>()?;
            let columns = self
                .types
                .iter()
                .enumerate()
                .map(|(column, data_type)| array(&group, column, data_type));
            let batch = RecordBatch::try_new(schema.clone(), columns.collect())
                .map_err(|e| Failure::Disk(std::io::Error::other(e)))?;
            writer.write(&batch).map_err(disk)?;
            writer.flush().map_err(disk)?;
        }
        writer.close().map_err(disk)?;
        Ok(())
    }
}

/// A whole number, if writing it gives the same text again but for a plus, or a minus of zero: `007` is none.
fn whole(text: &str) -> Option<i64> {
    let plain = match text.strip_prefix('+') {
        Some(digits) if !digits.starts_with('-') => digits,
        _ if text == "-0" => "0",
        _ => text,
    };
    plain.parse::<i64>().ok().filter(|number| number.to_string() == plain)
}

/// Whether a text has nothing but a sign and digits, however many.
fn is_digits(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a double holds all digits of a whole number.
fn is_exact(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    digits.parse().is_ok_and(|number: u128| number as f64 as u128 == number)
}

/// A number that is not whole text with zeros before it.
fn float(text: &str) -> Option<f64> {
    let digits = text.trim_start_matches(['-', '+']);
    let padded =
        digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    let starts = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    text.parse().ok().filter(|number: &f64| number.is_finite() && starts && !padded)
}

/// The plainest type that holds all values of a column. The vocabularies hold each value at least once.
fn type_of(table: &Table, column: usize) -> Result<DataType> {
    let (mut all_whole, mut all_floats) = (true, true);
    let (mut all_digits, mut all_exact) = (true, true);
    for number in 0..table.blocks() {
        for text in &table.block(number)?.vocabularies[column] {
            all_whole &= whole(text).is_some();
            all_floats &= float(text).is_some();
            all_digits &= is_digits(text);
            all_exact &= is_exact(text);
        }
    }
    // Whole numbers that no double holds name something: two of them must not become one.
    let names = all_digits && !all_exact;
    Ok(match (all_whole, all_floats && !names) {
        (true, _) => DataType::Int64,
        (false, true) => DataType::Float64,
        (false, false) => DataType::Utf8,
    })
}

/// A column of some rows.
fn array(rows: &[(Arc<Block>, usize)], column: usize, data_type: &DataType) -> ArrayRef {
    let texts = rows.iter().map(|(block, row)| block.text(column, block.row(*row)[column]));
    match data_type {
        DataType::Int64 => {
            let mut builder = Int64Builder::with_capacity(rows.len());
            texts.for_each(|text| builder.append_option(text.and_then(whole)));
            Arc::new(builder.finish())
        }
        DataType::Float64 => {
            let mut builder = Float64Builder::with_capacity(rows.len());
            texts.for_each(|text| builder.append_option(text.and_then(float)));
            Arc::new(builder.finish())
        }
        _ => {
            let mut builder = StringBuilder::new();
            texts.for_each(|text| builder.append_option(text));
            Arc::new(builder.finish())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_can_be_written_back() {
        assert_eq!(["17", "-3", "0"].map(whole), [Some(17), Some(-3), Some(0)]);
        assert_eq!(["+3", "+0", "-0"].map(whole), [Some(3), Some(0), Some(0)]);
        assert_eq!(["007", "1.0", "", "9223372036854775808"].map(whole), [None; 4]);
        assert_eq!(["+", "-", "+-3", "-+3", "++3", "+007", "-00"].map(whole), [None; 7]);
        let exact = ["9223372036854775808", "-18446744073709551616", "+3"];
        let other = ["9223372036854775809", "-18446744073709551615", "1.5"];
        assert_eq!((exact.map(is_exact), other.map(is_exact)), ([true; 3], [false; 3]));
        assert_eq!(
            ["1.5", "-.5", "1e3", "0.25", "3"].map(float),
            [1.5, -0.5, 1e3, 0.25, 3.0].map(Some)
        );
        assert_eq!(["007", "inf", "nan", "-", "1,5", "00.5"].map(float), [None; 6]);
    }
}
