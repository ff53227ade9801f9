//! As much of Thrift's compact protocol as Parquet's heads and footers consist of, and what values should be like
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>).

/// How deep structs and lists lie in each other at most; a footer has some six levels.
const DEPTH_MAX: usize = 16;

/// Why something is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It goes on.
    Short,
    /// It is something else, or more than one thing.
    Strange,
}

/// What a value should be, as far as it takes bytes: numbers of 16, 32 and 64 bits take the same ones.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Truth,
    Byte,
    Number,
    Double,
    /// Texts and bytes.
    Bytes,
    List(&'static Shape),
    /// The fields that are known, by their number.
    Struct(&'static [(i16, Shape)]),
}

impl Shape {
    /// Whether a value of a kind has this shape.
    fn is(self, kind: u8) -> bool {
        match self {
            Self::Truth => matches!(kind, 1 | 2),
            Self::Byte => kind == 3,
            Self::Number => matches!(kind, 4..=6),
            Self::Double => kind == 7,
            Self::Bytes => kind == 8,
            Self::List(_) => matches!(kind, 9 | 10),
            Self::Struct(_) => kind == Compact::STRUCT,
        }
    }
}

/// What is left to be read.
pub(super) struct Compact<'a>(&'a [u8]);

impl<'a> Compact<'a> {
    /// The kind of structs.
    const STRUCT: u8 = 12;

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

    /// Text or bytes.
    pub fn text(&mut self) -> Result<&'a [u8], Fault> {
        let bytes = self.varint()?;
        self.take(bytes)
    }

    /// The kind of a list's elements and how many it claims to have.
    pub fn list(&mut self) -> Result<(u8, u64), Fault> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => count.into(),
        };
        Ok((head & 0xf, count))
    }

    /// Passes over a struct whose fields must have shapes, as must all that is in them; what is not known may be anything.
    pub fn hold(&mut self, known: &'static [(i16, Shape)]) -> Result<(), Fault> {
        self.pass_struct(known, DEPTH_MAX)
    }

    /// Passes over a field of a struct, whatever is in it.
    pub fn skip(&mut self, kind: u8) -> Result<(), Fault> {
        self.pass_field(kind, None, DEPTH_MAX)
    }

    fn pass_field(&mut self, kind: u8, shape: Option<Shape>, depth: usize) -> Result<(), Fault> {
        match kind {
            // A truth is in its kind.
            1 | 2 if shape.is_none_or(|shape| shape.is(kind)) => Ok(()),
            kind => self.pass(kind, shape, depth),
        }
    }

    /// Passes over a value. There are no maps, and no lists of truths.
    fn pass(&mut self, kind: u8, shape: Option<Shape>, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or(Fault::Strange)?;
        if shape.is_some_and(|shape| !shape.is(kind)) {
            return Err(Fault::Strange);
        }
        match (kind, shape) {
            (3, _) => self.take(1).map(drop),
            (4..=6, _) => self.pass_number(),
            (7, _) => self.take(8).map(drop),
            (8, _) => self.text().map(drop),
            (9 | 10, Some(Shape::List(&elements))) => self.pass_list(Some(elements), depth),
            (9 | 10, _) => self.pass_list(None, depth),
            (Self::STRUCT, Some(Shape::Struct(known))) => self.pass_struct(known, depth),
            (Self::STRUCT, _) => self.pass_struct(&[], depth),
            (13, _) => self.take(16).map(drop),
            _ => Err(Fault::Strange),
        }
    }

    /// Passes over a list, each element of which takes a byte at least.
    fn pass_list(&mut self, elements: Option<Shape>, depth: usize) -> Result<(), Fault> {
        let (kind, count) = self.list()?;
        (0..count).try_for_each(|_| self.pass(kind, elements, depth))
    }

    fn pass_struct(&mut self, known: &[(i16, Shape)], depth: usize) -> Result<(), Fault> {
        let mut field = 0;
        while let Some(kind) = self.field(&mut field)? {
            let known = known.iter().find(|(number, _)| *number == field);
            self.pass_field(kind, known.map(|(_, shape)| *shape), depth)?;
        }
        Ok(())
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(bytes: &[u8]) -> Result<usize, Fault> {
        let mut compact = Compact::new(bytes);
        compact.hold(&[]).map(|()| compact.len())
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
    fn a_known_field_has_its_shape_whatever_is_in_the_others() {
        static POINT: &[(i16, Shape)] = &[(1, Shape::Number), (2, Shape::Truth)];
        static ALL: &[(i16, Shape)] = &[(2, Shape::List(&Shape::Struct(POINT))), (3, Shape::Byte)];
        let held = |bytes: &[u8]| Compact::new(bytes).hold(ALL);
        // An unknown text and a list of two points, with numbers of 16 and of 64 bits, truths, and an unknown field; a byte.
        let points = [0x14, 9, 0x11, 0, 0x16, 9, 0x12, 0x23, 5, 0];
        assert_eq!(
            held(&[&[0x18, 1, b'a', 0x19, 0x2c][..], &points, &[0x13, 1, 0]].concat()),
            Ok(())
        );
        let strange: [&[u8]; 6] = [
            // A list of numbers, a struct in place of the list, a truth in its place, which takes no byte.
            &[0x29, 0x15, 2, 0],
            &[0x2c, 0x14, 9, 0, 0],
            &[0x21, 0],
            // A point with a text for its number, one with a number for its truth; a number in place of a byte.
            &[0x29, 0x1c, 0x18, 1, b'a', 0, 0],
            &[0x29, 0x1c, 0x25, 2, 0, 0],
            &[0x35, 2, 0],
        ];
        for bytes in strange {
            assert_eq!(held(bytes), Err(Fault::Strange), "{bytes:02x?}");
        }
        // Where there is no element, its kind may be anything.
        assert_eq!(held(&[0x29, 0, 0]), Ok(()));
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
