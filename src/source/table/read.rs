//! Brings the chosen columns of a file into memory, in parallel.

use rayon::prelude::*;

use super::block::{Block, Table, Wanted, check_rows};
use super::cells::Wrong;
use super::head::{Format, Head};
use super::pieces::{Ends, Pieces};
use super::{delimited, json_lines};
use crate::error::{Error, Result};

/// Reads the columns `wanted`. A format with random access stays on the disk where the cells would take more than
/// `memory_bytes`.
///
/// # Errors
/// When the file is damaged, or a row does not hold what its columns do; the error names row and column.
pub(crate) fn read(head: &Head, wanted: Vec<Wanted>, memory_bytes: usize) -> Result<Table> {
    match head.format {
        Format::Delimited(_) | Format::JsonLines => text(head, wanted),
        #[cfg(feature = "parquet")]
        Format::Parquet => super::parquet::read(head, wanted, memory_bytes),
        #[cfg(feature = "parquet")]
        Format::ArrowFile | Format::ArrowStream => super::arrow::read(head, wanted, memory_bytes),
        #[cfg(not(feature = "parquet"))]
        _ => unreachable!("refused when the file was looked at, with {memory_bytes} bytes to come"),
    }
}

/// Reads the columns that are wanted of several Parquet files, as one table, which `path` stands for.
///
/// # Errors
/// As [`read`].
#[cfg(feature = "parquet")]
pub(crate) use super::parquet::read_joined;

/// Without the feature.
#[cfg(not(feature = "parquet"))]
pub(crate) fn read_joined(
    _path: &std::path::Path,
    _files: Vec<(std::path::PathBuf, Vec<Wanted>)>,
    _memory_bytes: usize,
) -> Result<Table> {
    unreachable!("refused when the files were looked at")
}

/// Reads rows of text.
fn text(head: &Head, wanted: Vec<Wanted>) -> Result<Table> {
    let ends = match head.format {
        Format::Delimited(delimiter) => Ends::Quoted(delimiter),
        _ => Ends::Lines,
    };
    let mut pieces = Pieces::open(&head.path, ends)?;
    let mut blocks: Vec<Block> = Vec::new();
    let mut rows = 0;
    while let Some((buffer, ranges)) = pieces.next_wave()? {
        if head.format == Format::JsonLines {
            // A line may be shorter than its row by all that is missing from it.
            let lines = rows + memchr::memchr_iter(b'\n', &buffer).count();
            check_rows(&head.path, pieces.file_bytes(), lines as u64, wanted.len())?;
        }
        let first = blocks.is_empty();
        let parse = |(i, range): (usize, std::ops::Range<usize>)| match head.format {
            Format::Delimited(delimiter) => {
                let skip_header = head.header && first && i == 0;
                let fields = head.columns.len();
                delimited::block(&buffer[range], delimiter, skip_header, fields, &wanted)
            }
            _ => json_lines::block(&buffer[range], &wanted),
        };
        let wave: Vec<Result<Block, Wrong>> =
            ranges.into_par_iter().enumerate().map(parse).collect();
        for block in wave {
            let block = block.map_err(|wrong| wrong.at(head, rows))?;
            rows += block.rows();
            blocks.push(block);
        }
    }
    if rows == 0 {
        return Err(Error::data(head.path.display(), "found no row, expected at least one"));
    }
    blocks.retain(|block| block.rows() > 0);
    Ok(Table::resident(head.path.clone(), wanted, blocks))
}

impl Wrong {
    /// The error, where `before` rows precede the block.
    pub fn at(self, head: &Head, before: usize) -> Error {
        let row = before + self.row + 1;
        let column = self.column.map_or(String::new(), |column| format!(" column {column}"));
        let item = format!("{} row {row}{column}", head.path.display());
        let error = Error::data(item, self.message);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
