//! The rows of a table in memory: four bytes a cell, row after row, so that a shuffled reader touches one place a sample.

#[cfg(feature = "parquet")]
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::source::file::UNPACK_BYTES_FREE;

/// What the cells of a column hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The bits of an `f32`; NaN where the number is missing.
    Number,
    /// The place of a text in the block's vocabulary, or [`MISSING`].
    Text,
}

/// Cells may take this many times the size of the file: runs of equal ones, as in columns that are almost always zero, take next
/// to nothing of it.
const CELLS_RATIO_MAX: u64 = 1024;

/// The code of a text that is missing.
pub(crate) const MISSING: u32 = u32::MAX;

/// A run of rows.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Cells of a row.
    pub width: usize,
    /// Row after row.
    pub cells: Vec<u32>,
    /// For each column of text its values, in the order in which they first occur; nothing for numbers. Each block has its
    /// own, so that blocks are read in parallel.
    pub vocabularies: Vec<Vec<String>>,
}

impl Block {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.cells.len().checked_div(self.width).unwrap_or(0)
    }

    /// What its texts take.
    #[cfg(feature = "parquet")]
    pub fn text_bytes(&self) -> usize {
        let texts = self.vocabularies.iter().flatten();
        texts.map(|text| size_of::<String>() + text.len()).sum()
    }

    /// The cells of a row.
    pub fn row(&self, row: usize) -> &[u32] {
        &self.cells[row * self.width..(row + 1) * self.width]
    }

    /// The numbers of a column; NaN where they are missing.
    pub fn numbers(&self, column: usize) -> impl Iterator<Item = f32> {
        self.codes(column).map(f32::from_bits)
    }

    /// The cells of a column.
    pub fn codes(&self, column: usize) -> impl Iterator<Item = u32> {
        self.cells.iter().skip(column).step_by(self.width.max(1)).copied()
    }

    /// The text that a code stands for.
    pub fn text(&self, column: usize, code: u32) -> Option<&str> {
        self.vocabularies[column].get(code as usize).map(String::as_str)
    }
}

/// Checks that a file has no more rows of so many columns than one of its length may.
pub(super) fn check_rows(path: &Path, file_bytes: u64, rows: u64, columns: usize) -> Result<()> {
    // A cell takes four bytes.
    let bytes = file_bytes.saturating_mul(CELLS_RATIO_MAX).max(UNPACK_BYTES_FREE);
    let most = bytes / (4 * columns.max(1) as u64);
    if rows > most {
        let message =
            format!("claims {rows} rows in a file of {file_bytes} bytes, expected at most {most}");
        return Err(
            Error::data(path.display(), message).hint("leaving out what is always the same")
        );
    }
    Ok(())
}

/// A block that others of the same columns are appended to.
#[cfg(feature = "parquet")]
#[derive(Debug, Default)]
pub(crate) struct Growing {
    block: Block,
    /// The codes of each column's texts, once there are two blocks.
    codes: Vec<HashMap<String, u32>>,
}

#[cfg(feature = "parquet")]
impl Growing {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.block.rows()
    }

    /// Appends the rows of another block.
    pub fn append(&mut self, mut other: Block) {
        if self.rows() == 0 {
            self.block = other;
            return;
        }
        if self.codes.is_empty() {
            let codes = |texts: &Vec<String>| texts.iter().cloned().zip(0..).collect();
            self.codes = self.block.vocabularies.iter().map(codes).collect();
        }
        for (column, texts) in std::mem::take(&mut other.vocabularies).into_iter().enumerate() {
            let (known, codes) = (&mut self.block.vocabularies[column], &mut self.codes[column]);
            let code = |text: String| {
                *codes.entry(text).or_insert_with_key(|text| {
                    known.push(text.clone());
                    known.len() as u32 - 1
                })
            };
            let renamed: Vec<u32> = texts.into_iter().map(code).collect();
            if renamed.is_empty() {
                continue;
            }
            for cell in other.cells.iter_mut().skip(column).step_by(self.block.width) {
                if *cell != MISSING {
                    *cell = renamed[*cell as usize];
                }
            }
        }
        self.block.cells.append(&mut other.cells);
    }

    /// All rows.
    pub fn finish(self) -> Block {
        self.block
    }
}

/// A column to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its place in the file, from 0.
    pub position: usize,
    /// Its name.
    pub name: String,
    /// What it is read as.
    pub kind: Kind,
}

/// The chosen columns of a file, or of several that are one table.
pub(crate) struct Table {
    /// The file, or what stands for several.
    pub path: PathBuf,
    /// The number of the first row of each file, and the file.
    files: Vec<(usize, PathBuf)>,
    /// Its columns, in the order of the cells.
    pub columns: Vec<Wanted>,
    /// The first row of each block, and the number of rows at the end.
    starts: Vec<usize>,
    blocks: Blocks,
}

enum Blocks {
    Resident(Vec<Arc<Block>>),
    /// Read when they are needed.
    #[cfg(feature = "parquet")]
    Loaded(super::kept::Kept<Block>),
}

impl Table {
    /// A table whose blocks are all in memory.
    pub fn resident(path: PathBuf, columns: Vec<Wanted>, blocks: Vec<Block>) -> Self {
        let starts = starts(blocks.iter().map(Block::rows));
        let blocks = Blocks::Resident(blocks.into_iter().map(Arc::new).collect());
        Self { files: vec![(0, path.clone())], path, columns, starts, blocks }
    }

    /// A table whose blocks, of `rows` rows, are loaded when they are needed; the `most` used last stay in memory.
    #[cfg(feature = "parquet")]
    pub fn loaded(
        path: PathBuf,
        columns: Vec<Wanted>,
        rows: impl IntoIterator<Item = usize>,
        most: usize,
        load: impl Fn(usize) -> Result<Block> + Send + Sync + 'static,
    ) -> Self {
        let starts = starts(rows.into_iter());
        let blocks = Blocks::Loaded(super::kept::Kept::new(most, load));
        Self { files: vec![(0, path.clone())], path, columns, starts, blocks }
    }

    /// The same table, whose rows are from these files, each from the row on that stands before it.
    #[cfg(feature = "parquet")]
    pub fn of_files(self, files: Vec<(usize, PathBuf)>) -> Self {
        assert!(files.first().is_some_and(|(first, _)| *first == 0), "the first file has row 0");
        Self { files, ..self }
    }

    /// The file, if it is but one.
    pub fn file(&self) -> Option<&Path> {
        match &self.files[..] {
            [(_, file)] => Some(file),
            _ => None,
        }
    }

    /// Where a row is from, as people count.
    pub fn origin(&self, row: usize) -> String {
        let file = self.files.partition_point(|(first, _)| *first <= row) - 1;
        let (first, path) = &self.files[file];
        format!("{} row {}", path.display(), row - first + 1)
    }

    /// The file that a row lies in, and its number there.
    pub fn file_of(&self, row: usize) -> (PathBuf, u64) {
        let file = self.files.partition_point(|(first, _)| *first <= row) - 1;
        let (first, path) = &self.files[file];
        (path.clone(), (row - first) as u64)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.starts.len() - 1
    }

    /// The first row of a block.
    pub fn start(&self, block: usize) -> usize {
        self.starts[block]
    }

    /// Which block a row lies in, and where in it.
    pub fn locate(&self, row: usize) -> (usize, usize) {
        let block = self.starts.partition_point(|&start| start <= row) - 1;
        (block, row - self.starts[block])
    }

    /// A block, where all are in memory.
    pub fn lend(&self, block: usize) -> Option<&Block> {
        match &self.blocks {
            Blocks::Resident(blocks) => Some(&blocks[block]),
            #[cfg(feature = "parquet")]
            Blocks::Loaded(_) => None,
        }
    }

    /// A block.
    ///
    /// # Errors
    /// When it must be read and cannot be.
    pub fn block(&self, block: usize) -> Result<Arc<Block>> {
        match &self.blocks {
            Blocks::Resident(blocks) => Ok(blocks[block].clone()),
            #[cfg(feature = "parquet")]
            Blocks::Loaded(kept) => {
                let found = kept.get(block)?;
                let (rows, expected) = (found.rows(), self.starts[block + 1] - self.starts[block]);
                if rows != expected {
                    let message = format!("found {rows} rows in part {block}, expected {expected}");
                    return Err(crate::error::Error::data(self.path.display(), message));
                }
                Ok(found)
            }
        }
    }

    /// What a cell is called in errors.
    pub fn cell(&self, row: usize, column: usize) -> String {
        let column = &self.columns[column].name;
        format!("{} column {column}", self.origin(row))
    }
}

fn starts(rows: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut starts = vec![0];
    for rows in rows {
        starts.push(starts[starts.len() - 1] + rows);
    }
    starts
}

#[cfg(all(test, feature = "parquet"))]
mod tests {
    use super::*;

    /// Rows of a number and a text, none where it is missing.
    fn block(texts: &[&str], rows: &[(f32, Option<u32>)]) -> Block {
        let cells = rows.iter().flat_map(|(n, code)| [n.to_bits(), code.unwrap_or(MISSING)]);
        let texts = texts.iter().map(|&text| text.into()).collect();
        Block { width: 2, cells: cells.collect(), vocabularies: vec![vec![], texts] }
    }

    fn shown(block: &Block) -> Vec<(f32, Option<&str>)> {
        block.numbers(0).zip(block.codes(1).map(|code| block.text(1, code))).collect()
    }

    #[test]
    fn blocks_that_are_appended_keep_their_texts() {
        let mut all = Growing::default();
        all.append(block(&["a", "b"], &[(1.0, Some(1)), (2.0, None), (3.0, Some(0))]));
        assert_eq!(all.rows(), 3);
        // The same texts under other codes, one that is new, and then no new one; none at all.
        all.append(block(&["b", "new", "a"], &[(4.0, Some(0)), (5.0, Some(1)), (6.0, Some(2))]));
        all.append(block(&["new", "b"], &[(7.0, Some(0)), (8.0, Some(1)), (9.0, None)]));
        all.append(block(&[], &[(10.0, None)]));
        let all = all.finish();
        let texts = ["b", "", "a", "b", "new", "a", "new", "b", "", ""];
        let row = |(n, text): (u16, &'static str)| {
            (f32::from(n), Some(text).filter(|text| !text.is_empty()))
        };
        let expected: Vec<_> = (1..).zip(texts).map(row).collect();
        assert_eq!(shown(&all), expected);
        assert_eq!(all.vocabularies[1], ["a", "b", "new"]);
    }
}
