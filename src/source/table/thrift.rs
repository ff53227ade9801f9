//! As much of Thrift's compact protocol as Parquet's heads and footers consist of
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>).

use std::path::Path;

use crate::error::{Error, Result as InflightResult};
use crate::source::blob::{Blob, LocalFile};

/// How deep structs and lists lie in each other at most; a footer has some six levels.
const DEPTH_MAX: usize = 16;

/// Behind a footer: its length and `PAR1`.
const TRAILER_BYTES: u64 = 8;

/// Why something is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It goes on.
    Short,
    /// It is something else, or more than one thing.
    Strange,
}

/// Checks that the parts of a footer are no more than its bytes: `parquet` goes over as many elements of a list as it claims, which
/// for truths takes time and no byte. What is damaged in another way is left to the reader.
///
/// # Errors
/// When the footer makes no sense, or the file cannot be read.
pub(super) fn check_footer(path: &Path) -> InflightResult<()> {
    let (file, mut bytes) = (LocalFile::new(path)?, Vec::new());
    let Some(end) = file.len().checked_sub(TRAILER_BYTES) else { return Ok(()) };
    file.read_at(end, TRAILER_BYTES as usize, &mut bytes)?;
    let Some((&len, magic)) = bytes.split_first_chunk() else { return Ok(()) };
    let len = u32::from_le_bytes(len);
    let Some(start) = end.checked_sub(len.into()).filter(|_| magic == b"PAR1") else {
        return Ok(());
    };
    file.read_at(start, len as usize, &mut bytes)?;
    Compact(&bytes).skip(Compact::STRUCT).map_err(|_| {
        let message =
            format!("is damaged, cut short or no Parquet: found no footer at byte {start}");
        Error::data(path.display(), message)
    })
}

/// What is left to be read.
pub(super) struct Compact<'a>(&'a [u8]);

impl<'a> Compact<'a> {
    /// The kind of numbers of 32 bits.
    pub const I32: u8 = 5;
    /// The kind of structs.
    pub const STRUCT: u8 = 12;

    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// So many bytes.
    pub fn take(&mut self, bytes: u64) -> Result<&'a [u8], Fault> {
        let bytes = usize::try_from(bytes).map_err(|_| Fault::Strange)?;
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Fault::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let (&byte, rest) = self.0.split_first().ok_or(Fault::Short)?;
        self.0 = rest;
        Ok(byte)
    }

    /// A number of 63 bits, the low ones first.
    pub fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Fault::Strange)
    }

    /// A number whose sign is its last bit.
    fn integer(&mut self) -> Result<i64, Fault> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number of 32 bits that is not negative.
    pub fn size(&mut self) -> Result<u64, Fault> {
        let size = i32::try_from(self.integer()?).map_err(|_| Fault::Strange)?;
        u64::try_from(size).map_err(|_| Fault::Strange)
    }

    /// The kind of the next field, whose number goes into `field`; none at the end of a struct.
    pub fn field(&mut self, field: &mut i16) -> Result<Option<u8>, Fault> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        let number = match head >> 4 {
            0 => self.integer()?,
            step => i64::from(*field) + i64::from(step),
        };
        *field = i16::try_from(number).map_err(|_| Fault::Strange)?;
        Ok(Some(head & 0xf))
    }

    /// Passes over a field of a struct. There are no maps, and no lists of truths.
    pub fn skip(&mut self, kind: u8) -> Result<(), Fault> {
        match kind {
            // A truth is in its kind.
            1 | 2 => Ok(()),
            kind => self.pass(kind, DEPTH_MAX),
        }
    }

    fn pass(&mut self, kind: u8, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or(Fault::Strange)?;
        match kind {
            3 => self.take(1).map(drop),
            4..=6 => self.pass_number(),
            7 => self.take(8).map(drop),
            8 => {
                let bytes = self.varint()?;
                self.take(bytes).map(drop)
            }
            9 | 10 => self.pass_list(depth),
            Self::STRUCT => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    if !matches!(kind, 1 | 2) {
                        self.pass(kind, depth)?;
                    }
                }
                Ok(())
            }
            13 => self.take(16).map(drop),
            _ => Err(Fault::Strange),
        }
    }

    /// Passes over a number of up to 64 bits.
    fn pass_number(&mut self) -> Result<(), Fault> {
        for _ in 0..10 {
            if self.byte()? < 0x80 {
                return Ok(());
            }
        }
        Err(Fault::Strange)
    }

    /// Passes over a list, each element of which takes a byte at least.
    fn pass_list(&mut self, depth: usize) -> Result<(), Fault> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => count.into(),
        };
        (0..count).try_for_each(|_| self.pass(head & 0xf, depth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(bytes: &[u8]) -> Result<usize, Fault> {
        let mut compact = Compact::new(bytes);
        compact.skip(Compact::STRUCT).map(|()| compact.len())
    }

    #[test]
    fn structs_lists_and_numbers_are_passed_over() {
        // A truth, a byte, a number of 64 bits, a text, a list of two structs with a list of 16 bytes, an id of 16 bytes.
        let mut bytes = vec![0x11, 0x13, 7, 0x16];
        bytes.extend([[0xff; 9].as_slice(), &[1], &[0x18, 2, b'a', b'b', 0x19, 0x2c]].concat());
        bytes.extend([0x15, 4, 0].iter().chain(&[0x19, 0xf3, 16]).chain(&[9; 16]).chain(&[0]));
        bytes.extend([0x1d].iter().chain(&[5; 16]).chain(&[0]));
        assert_eq!(skipped(&[&bytes[..], &[1, 2, 3]].concat()), Ok(3));
        for cut in 0..bytes.len() {
            assert_eq!(skipped(&bytes[..cut]), Err(Fault::Short), "cut at {cut}");
        }
    }

    #[test]
    fn what_takes_time_and_no_bytes_is_refused() {
        // A list of two billion truths; the same of bytes; lists in lists without end; a map; a number that does not end.
        let list = |kind: u8| [0x19, 0xf0 | kind, 0xff, 0xff, 0xff, 0xff, 7, 0];
        assert_eq!(skipped(&list(1)), Err(Fault::Strange));
        assert_eq!(skipped(&list(2)), Err(Fault::Strange));
        assert_eq!(skipped(&list(3)), Err(Fault::Short));
        assert_eq!(skipped(&[0x19; 64]), Err(Fault::Strange));
        assert_eq!(skipped(&[0x1b, 0, 0]), Err(Fault::Strange));
        assert_eq!(
            skipped(&[[0x16].as_slice(), &[0xff; 10], &[0, 0]].concat()),
            Err(Fault::Strange)
        );
    }
}
