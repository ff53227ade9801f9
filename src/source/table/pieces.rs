//! A file of records in pieces that end where a record ends, some pieces at a time: they are parsed in parallel, in memory
//! that does not grow with the file.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::source::file::Input;

/// Bytes of a piece. Fixed, so that blocks do not depend on the number of threads; large enough that a block's
/// vocabularies are few, small enough that a wave of them is little memory.
pub(super) const PIECE_BYTES: usize = 2 << 20;

/// Pieces read at a time.
const WAVE_PIECES: usize = 8;

/// Bytes of a record at most. A longer one is an opening quote without its end, or no table.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 20;

/// Where records end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// At every line's end.
    Lines,
    /// At the end of a line that is not inside of quotes; quotes count at the start of a field, after this delimiter.
    Quoted(u8),
}

/// Reads a file in waves of pieces.
pub(super) struct Pieces {
    path: PathBuf,
    input: Input,
    ends: Ends,
    /// What was read and not handed out yet.
    buffer: Vec<u8>,
    /// Bytes read so far, unpacked.
    bytes: u64,
    ended: bool,
}

/// Some pieces: a buffer, and where in it each lies.
pub type Wave = (Vec<u8>, Vec<Range<usize>>);

impl Pieces {
    /// Opens a file, after its byte order mark if it has one.
    pub fn open(path: &Path, ends: Ends) -> Result<Self> {
        let input = Input::open(path)?;
        let (path, buffer) = (path.to_owned(), Vec::new());
        let mut pieces = Self { path, input, ends, buffer, bytes: 0, ended: false };
        pieces.read(4)?;
        if pieces.buffer.starts_with(b"\xef\xbb\xbf") {
            pieces.buffer.drain(..3);
        }
        if pieces.buffer.starts_with(b"\xff\xfe") || pieces.buffer.starts_with(b"\xfe\xff") {
            return Err(Error::data(pieces.path.display(), "found UTF-16, expected UTF-8")
                .hint("iconv -f utf-16 -t utf-8"));
        }
        Ok(pieces)
    }

    /// Length of the file as it lies on the disk.
    pub fn file_bytes(&self) -> u64 {
        self.input.file_bytes
    }

    /// Whole records from the start, about `bytes` of them.
    pub fn sample(&mut self, bytes: usize) -> Result<&[u8]> {
        self.read(bytes)?;
        let mut end = self.cut(0, bytes);
        while end.is_none() {
            self.read(2 * self.buffer.len())?;
            end = self.cut(0, bytes);
            self.check_length(0, self.buffer.len())?;
        }
        Ok(&self.buffer[..end.unwrap_or(0)])
    }

    /// The next pieces, in one buffer; none at the end.
    pub fn next_wave(&mut self) -> Result<Option<Wave>> {
        let mut pieces = Vec::new();
        loop {
            self.read(WAVE_PIECES * PIECE_BYTES + self.buffer.len() / 2)?;
            let mut start = 0;
            // A piece is cut once all of it is there, so that cuts do not depend on how much is read at a time.
            while start < self.buffer.len()
                && (self.ended || self.buffer.len() - start >= PIECE_BYTES)
                && let Some(end) = self.cut(start, PIECE_BYTES)
            {
                // Longer than a piece is one record alone.
                self.check_length(start, end)?;
                pieces.push(start..end);
                start = end;
            }
            if start > 0 {
                let rest = self.buffer.split_off(start);
                return Ok(Some((std::mem::replace(&mut self.buffer, rest), pieces)));
            }
            if self.buffer.is_empty() && self.ended {
                return Ok(None);
            }
            self.check_length(0, self.buffer.len())?;
        }
    }

    /// Checks a record, or the beginning of one.
    fn check_length(&self, start: usize, end: usize) -> Result<()> {
        if end - start <= RECORD_BYTES_MAX {
            return Ok(());
        }
        let before = self.bytes - (self.buffer.len() - start) as u64;
        let message = format!(
            "found a row of over {RECORD_BYTES_MAX} bytes at byte {before}, expected shorter ones"
        );
        Err(Error::data(self.path.display(), message).hint("looking for a quote that does not end"))
    }

    /// Reads until the buffer holds `bytes` or the file ends.
    fn read(&mut self, bytes: usize) -> Result<()> {
        let had = self.buffer.len();
        if self.ended || had >= bytes {
            return Ok(());
        }
        let read = self.input.append(&self.path, &mut self.buffer, bytes - had)?;
        self.ended = read < bytes - had;
        self.bytes += read as u64;
        let most = self.input.claim_bytes_max();
        if self.input.compressed && self.bytes > most {
            let message = format!("unpacks to over {most} bytes from {}", self.input.file_bytes);
            return Err(Error::data(self.path.display(), message)
                .hint("unpacking it first, if it is to be trusted"));
        }
        Ok(())
    }

    /// The last end of a record within `bytes` from `start`, or else the first one after it.
    fn cut(&self, start: usize, bytes: usize) -> Option<usize> {
        let rest = &self.buffer[start..];
        if self.ended && rest.len() <= bytes {
            return Some(self.buffer.len());
        }
        let near = &rest[..rest.len().min(bytes)];
        let last_line = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte == b'\n');
        let found = match self.ends {
            Ends::Quoted(delimiter) if near.contains(&b'"') => last_end(rest, bytes, delimiter),
            _ => last_line(near).map(|at| at + 1),
        };
        // Beyond `near` there is one long record.
        let found = found.or_else(|| match self.ends {
            Ends::Quoted(delimiter) => last_end(rest, bytes, delimiter),
            Ends::Lines => rest.iter().position(|&byte| byte == b'\n').map(|at| at + 1),
        });
        found.map(|end| start + end).or_else(|| self.ended.then_some(self.buffer.len()))
    }
}

/// The end of the last record of `text` that ends within `most` bytes, or else of the first one, where quotes hide line
/// ends. A quote opens only at the start of a field, as the reader of records has it.
fn last_end(text: &[u8], most: usize, delimiter: u8) -> Option<usize> {
    let (mut at, mut found) = (0, None);
    let mut field_starts = true;
    let next = |from: usize, wanted: &dyn Fn(u8) -> bool| {
        text[from..].iter().position(|&byte| wanted(byte)).map(|length| from + length)
    };
    while at < text.len() {
        if field_starts && text[at] == b'"' {
            // To the closing quote; one that is doubled opens again at once.
            let Some(close) = next(at + 1, &|byte| byte == b'"') else { break };
            at = close + 1;
            field_starts = text.get(at) == Some(&b'"');
            continue;
        }
        let Some(stop) = next(at, &|byte| byte == delimiter || byte == b'\n' || byte == b'\r')
        else {
            break;
        };
        field_starts = true;
        at = stop + 1;
        if text[stop] == b'\n' {
            if at > most && found.is_some() {
                break;
            }
            found = Some(at);
            if at > most {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_in_quotes_end_no_record() {
        let end = |text: &str, most| last_end(text.as_bytes(), most, b',');
        assert_eq!(end("a,b\nc,d\n", 100), Some(8));
        assert_eq!(end("a,b\nc,d\n", 5), Some(4));
        assert_eq!(end("a,\"b\nc\"\nd", 100), Some(8));
        assert_eq!(end("a,\"b\"\"\nc\"\nd", 3), Some(10));
        // In the middle of a field a quote is a letter.
        assert_eq!(end("a,5\" pipe\nc,d\n", 12), Some(10));
        assert_eq!(end("a,\"open\nand never closed\n", 100), None);
        assert_eq!(end("a,b\nc,\"open\nand", 100), Some(4));
    }

    #[test]
    fn a_short_file_takes_little_memory() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("rows.csv");
        std::fs::write(&path, "a,b\n1,2\n").expect("writes");
        let mut pieces = Pieces::open(&path, Ends::Lines).expect("opens");
        let (buffer, ranges) = pieces.next_wave().expect("reads").expect("a wave");
        assert_eq!(ranges.first(), Some(&(0..8)));
        assert_eq!(buffer, b"a,b\n1,2\n");
        assert!(buffer.capacity() <= 1 << 10, "{} bytes", buffer.capacity());
    }

    #[test]
    fn pieces_are_the_file_whatever_lies_on_their_edges() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("rows.csv");
        let mut text = String::from("\u{feff}");
        while text.len() < 3 * WAVE_PIECES * PIECE_BYTES / 2 {
            text.push_str(&format!(
                "{},\"two\nlines\",{}\r\n",
                text.len(),
                "x".repeat(text.len() % 97)
            ));
        }
        text.push_str("the last,row,ends without a line end");
        std::fs::write(&path, &text).expect("writes");
        let mut pieces = Pieces::open(&path, Ends::Quoted(b',')).expect("opens");
        let (mut whole, mut count) = (Vec::new(), 0);
        while let Some((buffer, ranges)) = pieces.next_wave().expect("reads") {
            for range in ranges {
                let piece = &buffer[range];
                assert!(piece.len() <= PIECE_BYTES && (count == 0 || !piece.starts_with(b"lines")));
                count += 1;
                whole.extend_from_slice(piece);
            }
        }
        assert!(count > WAVE_PIECES, "{count} pieces");
        assert_eq!(whole, text.trim_start_matches('\u{feff}').as_bytes());
    }
}
