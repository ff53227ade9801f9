//! From the text of fields to the cells of a block.

use std::collections::HashMap;

use super::block::{Block, Kind, MISSING, Wanted};

/// What is wrong with a field or a row, before the caller says where.
#[derive(Debug)]
pub(super) struct Wrong {
    /// The row, from 0 in its block.
    pub row: usize,
    /// The name of the column.
    pub column: Option<String>,
    /// Found and expected.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

/// Bytes of a field that an error shows.
const SHOWN_BYTES: usize = 40;

/// Whether a field says that there is no value.
pub(super) fn is_missing(field: &[u8]) -> bool {
    matches!(field, b"" | b"?" | b"NA" | b"N/A" | b"NaN" | b"nan" | b"null" | b"NULL")
}

/// The number that a field is, if it is one.
pub(super) fn number(field: &[u8]) -> Option<f32> {
    // Rust also reads `inf` and `nan`, which no column of numbers means.
    let digit = |byte: &u8| byte.is_ascii_digit();
    if !field.iter().take(3).any(digit) {
        return None;
    }
    std::str::from_utf8(field).ok()?.parse().ok().filter(|number: &f32| number.is_finite())
}

/// Appends rows to a block.
pub(super) struct Cells<'a> {
    columns: &'a [Wanted],
    block: Block,
    /// For each column of text, the codes of its values.
    codes: Vec<HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>>,
}

impl<'a> Cells<'a> {
    pub fn new(columns: &'a [Wanted]) -> Self {
        let vocabularies = columns.iter().map(|_| Vec::new()).collect();
        let block = Block { width: columns.len(), cells: Vec::new(), vocabularies };
        Self { columns, block, codes: columns.iter().map(|_| HashMap::default()).collect() }
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.block.rows()
    }

    pub fn finish(mut self) -> Block {
        self.block.cells.shrink_to_fit();
        self.block
    }

    /// Begins a row, all of it missing, and gives where its cells begin.
    pub fn begin_row(&mut self) -> usize {
        let start = self.block.cells.len();
        let missing = self.columns.iter().map(|column| match column.kind {
            Kind::Number => f32::NAN.to_bits(),
            Kind::Text => MISSING,
        });
        self.block.cells.extend(missing);
        start
    }

    /// Sets a cell of the row that begins at `start`.
    ///
    /// # Errors
    /// When the field is not what its column holds.
    pub fn set(&mut self, start: usize, column: usize, field: &[u8]) -> Result<(), Wrong> {
        let field = field.trim_ascii();
        let cell = match self.columns[column].kind {
            // A number is what most fields are, so that is tried first.
            Kind::Number => match number(field) {
                Some(number) => number.to_bits(),
                None if is_missing(field) => return Ok(()),
                None => return Err(self.not_a_number(start, column, field)),
            },
            Kind::Text if is_missing(field) => return Ok(()),
            Kind::Text => self.code(start, column, field)?,
        };
        self.block.cells[start + column] = cell;
        Ok(())
    }

    /// Sets a cell to a number.
    pub fn set_number(&mut self, start: usize, column: usize, number: f32) {
        self.block.cells[start + column] = number.to_bits();
    }

    fn code(&mut self, start: usize, column: usize, field: &[u8]) -> Result<u32, Wrong> {
        if let Some(&code) = self.codes[column].get(field) {
            return Ok(code);
        }
        let Ok(text) = std::str::from_utf8(field) else {
            let message = format!("found bytes that are not UTF-8, {}", shown(field));
            return Err(self.wrong(start, column, message, "iconv -f latin1 -t utf-8"));
        };
        let values = &mut self.block.vocabularies[column];
        let code = values.len() as u32;
        values.push(text.into());
        self.codes[column].insert(field.into(), code);
        Ok(code)
    }

    fn not_a_number(&self, start: usize, column: usize, field: &[u8]) -> Wrong {
        let message = format!("found {}, expected a number", shown(field));
        let name = &self.columns[column].name;
        let hint = format!("correcting or emptying it, or --categorical {name}");
        self.wrong(start, column, message, &hint)
    }

    fn wrong(&self, start: usize, column: usize, message: String, hint: &str) -> Wrong {
        let row = start / self.block.width;
        let (column, hint) = (Some(self.columns[column].name.clone()), Some(hint.into()));
        Wrong { row, column, message, hint }
    }
}

/// A field for an error, cut to a length that fits a line.
pub(super) fn shown(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(&field[..field.len().min(SHOWN_BYTES)]);
    if field.len() > SHOWN_BYTES {
        return format!("{text:?}… of {} bytes", field.len());
    }
    format!("{text:?}")
}
