//! Tar archives whose headers end: `tar` reads long names and extensions into memory, however long they are, and what comes through a
//! pipe or unpacks may have no end.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Bytes between the contents of two members at most: headers, with long names, and zeros.
pub(crate) const HEADERS_BYTES_MAX: u64 = 1 << 20;

/// A stream of an archive, of which only so much may be read as its members have, and what is between two of them.
pub(crate) struct Metered<R> {
    stream: R,
    left: Rc<Cell<u64>>,
}

/// Says how long the members are.
pub(crate) struct Meter(Rc<Cell<u64>>);

impl<R: Read> Metered<R> {
    pub fn new(stream: R) -> (Self, Meter) {
        let left = Rc::new(Cell::new(HEADERS_BYTES_MAX));
        (Self { stream, left: left.clone() }, Meter(left))
    }
}

impl Meter {
    /// What follows is a member of so many bytes, then headers again.
    pub fn member(&self, bytes: u64) {
        self.0.set(bytes.saturating_add(HEADERS_BYTES_MAX));
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !into.is_empty() {
            let message = format!("found no member in {HEADERS_BYTES_MAX} bytes, expected one");
            return Err(io::Error::other(message));
        }
        let len = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.stream.read(&mut into[..len])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}
