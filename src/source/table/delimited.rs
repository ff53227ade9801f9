//! CSV and its relatives: fields with a comma, semicolon, tab or bar between them, quoted where needed.

use std::collections::HashSet;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};

use super::block::{Block, Wanted};
use super::cells::{Cells, Wrong, is_missing, number};
use super::head::{Column, Format, Head, Look, SAMPLE_BYTES, SAMPLE_ROWS, is_image_path, look};
use crate::error::{Error, Result};

/// What may stand between fields, the most common first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Says what columns a file has, by its first rows: its delimiter, whether it has a header, and what is in each column.
pub(super) fn head(path: &Path, sample: &[u8], header: Option<bool>) -> Result<Head> {
    let fits = |&delimiter: &u8| {
        let records = records(sample, delimiter);
        (width(&records), delimiter, records)
    };
    // Of equally good ones the first.
    let (_, delimiter, records) = DELIMITERS
        .iter()
        .map(fits)
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .expect("there are delimiters");
    let Some((first, rest)) = records.split_first() else {
        return Err(Error::data(path.display(), "found no row, expected a table"));
    };
    let header = header.unwrap_or_else(|| is_header(first, rest));
    let name = |(i, field): (usize, &[u8])| match header {
        true => String::from_utf8_lossy(field.trim_ascii()).into_owned(),
        false => (i + 1).to_string(),
    };
    let names: Vec<String> = first.iter().enumerate().map(name).collect();
    let mut known = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !known.insert(name.as_str())) {
        let message = format!("found two columns called {twice:?}, expected a name once");
        return Err(
            Error::data(path.display(), message).hint("--header false, if it has no header")
        );
    }
    let rows = if header { rest } else { &records[..] };
    let column = |(i, name)| Column { name, look: look(rows.iter().filter_map(|row| row.get(i))) };
    let columns = names.into_iter().enumerate().map(column).collect();
    let format = Format::Delimited(delimiter);
    Ok(Head { path: path.into(), format, header, columns, class_names: Vec::new() })
}

/// The first records of a text.
fn records(sample: &[u8], delimiter: u8) -> Vec<ByteRecord> {
    let mut reader = ReaderBuilder::new();
    reader.has_headers(false).flexible(true).delimiter(delimiter);
    let records = reader.from_reader(sample).into_byte_records();
    let mut found: Vec<ByteRecord> = records.map_while(Result::ok).take(SAMPLE_ROWS + 1).collect();
    // A sample that ends before the file may end in the middle of a record, inside of quotes.
    if found.len() <= SAMPLE_ROWS && sample.len() >= SAMPLE_BYTES / 2 && found.len() > 2 {
        found.pop();
    }
    found
}

/// How many rows of the width of the first one there are, and that width; a delimiter that occurs nowhere has no rows.
fn width(records: &[ByteRecord]) -> (usize, usize) {
    let Some(first) = records.first().filter(|first| first.len() > 1) else { return (0, 0) };
    (records.iter().filter(|record| record.len() == first.len()).count(), first.len())
}

/// Whether the first row names the columns: all of it is text, and unlike what is below.
fn is_header(first: &ByteRecord, rest: &[ByteRecord]) -> bool {
    let fields: Vec<&[u8]> = first.iter().map(<[u8]>::trim_ascii).collect();
    let names = fields.iter().enumerate();
    // The first column may be a number of the row, without a name.
    let named = names.clone().all(|(i, f)| number(f).is_none() && (i == 0 || !is_missing(f)));
    if !named || fields.iter().any(|field| is_image_path(field)) {
        return false;
    }
    let below = |i: usize| rest.iter().filter_map(move |row| row.get(i)).map(<[u8]>::trim_ascii);
    let numbers = |i: usize| matches!(look(below(i)), Look::Numbers { .. });
    let has_numbers = (0..fields.len()).any(|i| below(i).next().is_some() && numbers(i));
    // Without numbers a name is what is there once.
    let distinct = fields.iter().collect::<HashSet<_>>().len() == fields.len();
    has_numbers || (distinct && names.clone().all(|(i, &name)| below(i).all(|field| field != name)))
}

/// Reads the rows of a piece into a block.
///
/// # Errors
/// When a row has another number of fields than the others, or a field is not what its column holds.
pub(super) fn block(
    piece: &[u8],
    delimiter: u8,
    skip_header: bool,
    fields: usize,
    wanted: &[Wanted],
) -> Result<Block, Wrong> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .buffer_capacity(1 << 16)
        .from_reader(piece);
    let mut cells = Cells::new(wanted);
    let mut record = ByteRecord::new();
    let mut skip = skip_header;
    loop {
        let row = cells.rows();
        let wrong = |message: String, hint: Option<&str>| {
            let hint = hint.map(Into::into);
            Wrong { row, column: None, message, hint }
        };
        match reader.read_byte_record(&mut record) {
            Ok(true) if std::mem::take(&mut skip) => continue,
            Ok(true) => {}
            Ok(false) => return Ok(cells.finish()),
            Err(e) => return Err(wrong(format!("cannot be read: {e}"), None)),
        }
        if record.len() != fields {
            let message = format!("found {} fields, expected {fields}", record.len());
            return Err(wrong(message, Some("looking for a missing delimiter or an open quote")));
        }
        let start = cells.begin_row();
        for (column, wanted) in wanted.iter().enumerate() {
            cells.set(start, column, &record[wanted.position])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> (u8, bool, Vec<String>) {
        let head = head(Path::new("t.csv"), text.as_bytes(), None).expect("a table");
        let Format::Delimited(delimiter) = head.format else { panic!("{:?}", head.format) };
        (delimiter, head.header, head.columns.into_iter().map(|column| column.name).collect())
    }

    #[test]
    fn delimiters_and_headers_are_found_by_content() {
        let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        assert_eq!(names("a;b\n1,5;2\n2,5;3\n"), (b';', true, own(&["a", "b"])));
        assert_eq!(names("1\t2\n3\t4\n"), (b'\t', false, own(&["1", "2"])));
        assert_eq!(
            names("39, State-gov, <=50K\n50, Private, >50K\n"),
            (b',', false, own(&["1", "2", "3"]))
        );
        assert!(names("file,label\na.png,cat\nb.png,dog\n").1);
        assert!(!names("a.png,cat\nb.png,dog\nc.png,cat\n").1);
        assert_eq!(names("\"x, y\",z\n1,2\n").2, ["x, y", "z"]);
        assert_eq!(names(",x\n0,1.5\n1,2.5\n").2, ["", "x"]);
    }

    #[test]
    fn columns_are_what_their_fields_are() {
        let text = "n,w,t,p,e\n1.5,1,x,a.jpg,\n?,-2,3,b.PNG,NA\n,,4,c.webp,\n";
        let head = head(Path::new("t.csv"), text.as_bytes(), None).expect("a table");
        let looks: Vec<Look> = head.columns.into_iter().map(|column| column.look).collect();
        let numbers = |whole| Look::Numbers { whole };
        let expected =
            [numbers(false), numbers(true), Look::Text, Look::ImagePaths, numbers(false)];
        assert_eq!(looks, expected);
    }

    #[test]
    fn a_wrong_number_in_many_makes_no_categories() {
        let look = |wrong: usize, of: usize, right: &str| {
            let field = |i| if i < wrong { "12..5" } else { right };
            let text = (0..of).fold("x,y\n".to_string(), |text, i| text + field(i) + ",1\n");
            let head = head(Path::new("t.csv"), text.as_bytes(), None).expect("a table");
            head.columns.into_iter().next().expect("a column").look
        };
        assert_eq!(look(1, 20, "7"), Look::Numbers { whole: true });
        assert_eq!(look(2, 40, "7.5"), Look::Numbers { whole: false });
        assert_eq!(look(1, 19, "7"), Look::Text);
        assert_eq!(look(3, 59, "7"), Look::Text);
        assert_eq!(look(20, 20, "7"), Look::Text);
    }
}
