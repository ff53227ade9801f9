//! From the bytes of tokens to text as far as it is certain: characters that are whole, and nothing that may turn out to
//! be the beginning of a string that is to stop it.

use super::{Finish, Token};
use crate::tokenizer::Tokenizer;

/// Text in pieces.
#[derive(Clone, Debug, Default)]
pub struct TextPieces {
    stops: Vec<String>,
    /// Not yet handed out.
    bytes: Vec<u8>,
    /// Characters handed out.
    chars: usize,
    stopped: bool,
}

impl TextPieces {
    /// Text that ends before the first of `stops`; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, ..Self::default() }
    }

    /// Whether a stop has come.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Takes a token; returns what is now certain, and why it is the last one, if it is. The token that ends a text says
    /// nothing.
    pub fn take_token(&mut self, token: &Token, tokenizer: &Tokenizer) -> (String, Option<Finish>) {
        let is_end = token.finish == Some(Finish::Stop);
        let mut text = self.push(if is_end { &[] } else { tokenizer.bytes(token.id) });
        if self.stopped {
            return (text, Some(Finish::Stop));
        }
        if token.finish.is_some() {
            text.push_str(&self.finish());
        }
        (text, token.finish)
    }

    /// The number of the character that a token of these bytes begins in, if it comes next; from 0 at the beginning of the
    /// text.
    pub fn offset(&self, bytes: &[u8]) -> usize {
        let both = [&self.bytes, bytes].concat();
        let ends = both.utf8_chunks().flat_map(|chunk| {
            let invalid = Some(chunk.invalid().len()).filter(|&len| len > 0);
            chunk.valid().chars().map(char::len_utf8).chain(invalid)
        });
        let ends = ends.scan(0, |end, len| {
            *end += len;
            Some(*end)
        });
        self.chars + ends.take_while(|&end| end <= self.bytes.len()).count()
    }

    /// Takes the bytes of a token; returns what is now certain. Bytes that are no UTF-8 become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.bytes.extend_from_slice(bytes);
        if let Some(at) = self.first_stop() {
            self.stopped = true;
            self.bytes.truncate(at);
            return self.take(at);
        }
        let certain = self.bytes.len() - self.held();
        self.take(certain)
    }

    /// The end: whatever was held back.
    pub fn finish(&mut self) -> String {
        self.take(self.bytes.len())
    }

    fn take(&mut self, len: usize) -> String {
        let rest = self.bytes.split_off(len);
        let taken = std::mem::replace(&mut self.bytes, rest);
        let text = String::from_utf8(taken)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        self.chars += text.chars().count();
        text
    }

    fn first_stop(&self) -> Option<usize> {
        let at = |stop: &String| memchr::memmem::find(&self.bytes, stop.as_bytes());
        self.stops.iter().filter_map(at).min()
    }

    /// Bytes at the end that may yet become a stop, or the rest of a character.
    fn held(&self) -> usize {
        let begins = |stop: &String| {
            let most = (stop.len() - 1).min(self.bytes.len());
            (1..=most).rev().find(|&len| self.bytes.ends_with(&stop.as_bytes()[..len])).unwrap_or(0)
        };
        let stop = self.stops.iter().map(begins).max().unwrap_or(0);
        // A stop is held from the beginning of one of its characters, so what is before it ends with a whole one.
        stop.max(unfinished(&self.bytes))
    }
}

/// Bytes at the end that are the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    // The longest character has four bytes.
    for back in 1..=bytes.len().min(3) {
        let len = match bytes[bytes.len() - back] {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => return 0,
        };
        return if len > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(stops: &[&str], parts: &[&[u8]]) -> Vec<String> {
        let mut text = TextPieces::new(stops.iter().map(|stop| stop.to_string()));
        let mut found: Vec<String> = parts.iter().map(|part| text.push(part)).collect();
        found.push(text.finish());
        found
    }

    #[test]
    fn characters_come_whole() {
        let euro = "€".as_bytes();
        assert_eq!(
            pieces(&[], &[b"a", &euro[..1], &euro[1..2], &euro[2..], b"b"]),
            ["a", "", "", "€", "b", ""]
        );
        let smile = "😀".as_bytes();
        assert_eq!(pieces(&[], &[&smile[..3], &smile[3..]]), ["", "😀", ""]);
        // What never becomes one is shown as such, at the end too.
        assert_eq!(pieces(&[], &[b"\xff", b"a\xe2"]), ["\u{fffd}", "a", "\u{fffd}"]);
        assert_eq!(pieces(&[], &[b"\x80\x80\x80\x80a"]), ["\u{fffd}\u{fffd}\u{fffd}\u{fffd}a", ""]);
    }

    #[test]
    fn a_token_begins_in_a_character() {
        let offsets = |parts: &[&[u8]]| -> Vec<usize> {
            let mut text = TextPieces::new(["END".to_string()]);
            let mut each = |part: &&[u8]| {
                let offset = text.offset(part);
                text.push(part);
                offset
            };
            parts.iter().map(&mut each).collect()
        };
        // Parts of a character are where it is.
        assert_eq!(offsets(&[b"a\xe2", b"\x82", b"\xac", "é".as_bytes(), b"b"]), [0, 1, 1, 2, 3]);
        // What is none becomes one of its own.
        assert_eq!(offsets(&[b"\xe2", b"\xff\xff", b"a", b"", b"b"]), [0, 1, 3, 4, 4]);
        // Also while it is held back.
        assert_eq!(offsets(&[b"xE", b"N", b"E", b"y"]), [0, 2, 3, 4]);
    }

    #[test]
    fn a_stop_ends_the_text_before_it_however_it_is_cut() {
        assert_eq!(pieces(&["END"], &[b"to be EN", b"D or not"]), ["to be ", "", ""]);
        assert_eq!(pieces(&["END"], &[b"xENDy", b"z"]), ["x", "", ""]);
        // What looked like one and is none comes later.
        assert_eq!(pieces(&["END"], &[b"EN", b"E", b"N!"]), ["", "EN", "EN!", ""]);
        assert_eq!(pieces(&["END"], &[b"EN"]), ["", "EN"]);
        // The first of several, wherever it stands in the list.
        assert_eq!(pieces(&["b", "a", ""], &[b"xab"]), ["x", ""]);
        let mut text = TextPieces::new(["é".to_string()]);
        assert_eq!(text.push("né".as_bytes()), "n");
        assert!(text.is_stopped());
        assert_eq!(text.push(b"more"), "");
    }
}
