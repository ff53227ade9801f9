//! What columns a file has: by its schema, or by a look at its first rows.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::cells::{is_missing, number};
use super::pieces::{Ends, Pieces};
use super::{delimited, json_lines};
use crate::error::{Error, Result};
use crate::source::file::io_error;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Fields with this byte between them.
    Delimited(u8),
    /// A JSON object a line.
    JsonLines,
    /// Parquet.
    Parquet,
    /// Arrow's file format, with random access to its batches.
    ArrowFile,
    /// Arrow's stream format.
    ArrowStream,
}

/// The columns of a file.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub path: PathBuf,
    pub format: Format,
    /// Whether the names are the file's own; else columns are called `1`, `2`, and so on.
    pub header: bool,
    pub columns: Vec<Column>,
    /// Names of the classes 0, 1, and so on, where the file carries them, with the column that they are of; without one
    /// they are of whichever is the target.
    pub class_names: Vec<(Option<String>, Vec<String>)>,
}

impl Head {
    /// The names of the classes in a column; empty if the file does not say them.
    pub fn class_names_of(&self, column: &str) -> &[String] {
        let is_of = |of: &Option<String>| of.as_ref().is_none_or(|of| of == column);
        let found = self.class_names.iter().find(|(of, _)| is_of(of));
        found.map_or(&[], |(_, names)| names)
    }

    /// How many classes there are, where the file was written here and says it.
    pub fn classes(&self) -> Option<usize> {
        let own = |(of, names): &&(Option<String>, Vec<String>)| of.is_none() && !names.is_empty();
        self.class_names.iter().find(own).map(|(_, names)| names.len())
    }
}

/// A column of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub name: String,
    pub look: Look,
}

/// What a column seems to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Numbers; `whole` if none of them has a fraction.
    Numbers { whole: bool },
    /// Text.
    Text,
    /// Text, all of which could be paths of image files.
    ImagePaths,
    /// Image files themselves, as bytes or in a struct with a field `bytes`.
    Images,
    /// Something that a table here cannot use, in words.
    Other(String),
}

impl Look {
    /// It in words.
    pub fn words(&self) -> &str {
        match self {
            Self::Numbers { whole: true } => "whole numbers",
            Self::Numbers { whole: false } => "numbers",
            Self::Text => "text",
            Self::ImagePaths => "paths of images",
            Self::Images => "images",
            Self::Other(found) => found,
        }
    }
}

/// Bytes of a text file that are looked at.
pub(super) const SAMPLE_BYTES: usize = 1 << 20;

/// Rows of it that are looked at.
pub(super) const SAMPLE_ROWS: usize = 1000;

/// Ends of names of image files.
const IMAGE_EXTENSIONS: [&str; 6] = [".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"];

/// Says what columns a file has. `header` says whether its first row names them, where that is known.
///
/// # Errors
/// When the file cannot be read or is no table.
pub(crate) fn head(path: &Path, header: Option<bool>) -> Result<Head> {
    let mut magic = Vec::new();
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    file.take(8).read_to_end(&mut magic).map_err(|e| io_error(path, e))?;
    if magic.is_empty() {
        return Err(Error::data(path.display(), "found an empty file, expected a table"));
    }
    match binary(path, &magic) {
        Some(Format::Parquet) => parquet_head(path),
        Some(Format::ArrowFile) => arrow_head(path, Format::ArrowFile),
        Some(Format::ArrowStream) => arrow_head(path, Format::ArrowStream),
        _ => text_head(path, header),
    }
}

/// The format of a file that is not text: by its first bytes, or by its name if it ought to be one.
pub(crate) fn binary(path: &Path, magic: &[u8]) -> Option<Format> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let named = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if magic.starts_with(b"PAR1") || named(&[".parquet", ".pq"]) {
        Some(Format::Parquet)
    } else if magic.starts_with(b"ARROW1") {
        Some(Format::ArrowFile)
    } else if magic.starts_with(&[0xff; 4]) || named(&[".arrow", ".arrows", ".ipc", ".feather"]) {
        Some(Format::ArrowStream)
    } else {
        None
    }
}

#[cfg(feature = "parquet")]
use super::{arrow::head as arrow_head, parquet::head as parquet_head};

#[cfg(not(feature = "parquet"))]
fn parquet_head(path: &Path) -> Result<Head> {
    arrow_head(path, Format::Parquet)
}

#[cfg(not(feature = "parquet"))]
fn arrow_head(path: &Path, format: Format) -> Result<Head> {
    let found = if format == Format::Parquet { "Parquet" } else { "Arrow IPC" };
    let message = format!("found {found}, which this build does not read");
    Err(Error::data(path.display(), message).hint("cargo build --features parquet"))
}

fn text_head(path: &Path, header: Option<bool>) -> Result<Head> {
    // Cut at any line's end: what quotes hide is not known before the delimiter is.
    let mut pieces = Pieces::open(path, Ends::Lines)?;
    let sample = pieces.sample(SAMPLE_BYTES)?;
    if sample.contains(&0) {
        let found = if image::guess_format(sample).is_ok() { "an image" } else { "binary data" };
        let message = format!("found {found}, expected a table as text");
        return Err(
            Error::data(path.display(), message).hint("the name that belongs to what is in it")
        );
    }
    if sample.trim_ascii().is_empty() {
        return Err(Error::data(path.display(), "found an empty file, expected a table"));
    }
    let start = sample.trim_ascii_start();
    if start.starts_with(b"{") {
        return json_lines::head(path, sample);
    }
    let name = path.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    if name.ends_with(".jsonl") || name.ends_with(".ndjson") {
        let found: String = String::from_utf8_lossy(start).chars().take(20).collect();
        let error = Error::data(
            path.display(),
            format!("begins with {found:?}, expected a JSON object in every line"),
        );
        return Err(match start[0] {
            b'[' => error.hint("jq -c '.[]', which puts each element of a list into a line"),
            _ => error.hint("a name that ends in .csv, if it is a table of fields"),
        });
    }
    delimited::head(path, sample, header)
}

/// Of so many fields one may be no number: a column of numbers all the same, and reading it will name the wrong one.
const WRONG_NUMBERS: usize = 20;

/// What the fields of a column in the first rows seem to be.
pub(super) fn look<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Look {
    let (mut some, mut others, mut whole, mut paths) = (0, 0, true, true);
    for field in fields.map(<[u8]>::trim_ascii).filter(|field| !is_missing(field)) {
        some += 1;
        match number(field) {
            Some(_) => {
                whole &= field.iter().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+'))
            }
            None => others += 1,
        }
        paths &= is_image_path(field);
    }
    match (some > 0, paths) {
        (true, true) => Look::ImagePaths,
        // A column without a value so far: most probably numbers that are seldom there.
        _ if others * WRONG_NUMBERS <= some => Look::Numbers { whole: whole && some > 0 },
        _ => Look::Text,
    }
}

pub(super) fn is_image_path(field: &[u8]) -> bool {
    let end = String::from_utf8_lossy(&field[field.len().saturating_sub(6)..]).to_lowercase();
    IMAGE_EXTENSIONS.iter().any(|extension| end.ends_with(extension))
}
