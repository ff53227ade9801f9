//! What the footer of a Parquet file says, held against `parquet.thrift`
//! (<https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>) before the reader takes it: `parquet`
//! reads a field that it knows as the kind it should have, goes over as many elements of a list as it claims, calls itself for each
//! level of groups, and copies the names of all groups for each column in them.

use std::path::Path;

use super::thrift::Shape::{Byte, Bytes, Double, List, Number, Struct, Truth};
use super::thrift::{Compact, Fault, Shape};
use crate::error::{Error, Result};
use crate::source::blob::{Blob, LocalFile};
use crate::source::file::unpack_bytes_max;

/// Behind a footer: its length and `PAR1`.
const TRAILER_BYTES: u64 = 8;

/// How deep groups of columns lie in each other at most; a list takes two levels.
const GROUPS_DEPTH_MAX: usize = 64;

/// What a name takes besides its bytes.
const NAME_BYTES: u64 = 64;

/// The field of a footer with its schema.
const SCHEMA: i16 = 2;

const FILE_META_DATA: &[(i16, Shape)] = &[
    (1, Number),
    (SCHEMA, List(&Struct(SCHEMA_ELEMENT))),
    (3, Number),
    (4, List(&Struct(ROW_GROUP))),
    (5, List(&Struct(KEY_VALUE))),
    (6, Bytes),
    (7, List(&Struct(COLUMN_ORDER))),
    (8, EMPTY),
    (9, Bytes),
];

const SCHEMA_ELEMENT: &[(i16, Shape)] = &[
    (1, Number),
    (2, Number),
    (3, Number),
    (4, Bytes),
    (5, Number),
    (6, Number),
    (7, Number),
    (8, Number),
    (9, Number),
    (10, Struct(LOGICAL_TYPE)),
];

/// Nothing, or fields that no one here reads.
const EMPTY: Shape = Struct(&[]);

const LOGICAL_TYPE: &[(i16, Shape)] = &[
    (1, EMPTY),
    (2, EMPTY),
    (3, EMPTY),
    (4, EMPTY),
    (5, Struct(&[(1, Number), (2, Number)])),
    (6, EMPTY),
    (7, Struct(TIME)),
    (8, Struct(TIME)),
    (10, Struct(&[(1, Byte), (2, Truth)])),
    (11, EMPTY),
    (12, EMPTY),
    (13, EMPTY),
    (14, EMPTY),
    (15, EMPTY),
    (16, Struct(&[(1, Byte)])),
    (17, Struct(&[(1, Bytes)])),
    (18, Struct(&[(1, Bytes), (2, Number)])),
    (19, EMPTY),
];

const TIME: &[(i16, Shape)] = &[(1, Truth), (2, Struct(TIME_UNIT))];

const TIME_UNIT: &[(i16, Shape)] = &[(1, EMPTY), (2, EMPTY), (3, EMPTY)];

const COLUMN_ORDER: &[(i16, Shape)] = &[(1, EMPTY), (2, EMPTY), (3, EMPTY)];

const KEY_VALUE: &[(i16, Shape)] = &[(1, Bytes), (2, Bytes)];

const ROW_GROUP: &[(i16, Shape)] = &[
    (1, List(&Struct(COLUMN_CHUNK))),
    (2, Number),
    (3, Number),
    (4, List(&Struct(&[(1, Number), (2, Truth), (3, Truth)]))),
    (5, Number),
    (6, Number),
    (7, Number),
];

const COLUMN_CHUNK: &[(i16, Shape)] = &[
    (1, Bytes),
    (2, Number),
    (3, Struct(COLUMN_META_DATA)),
    (4, Number),
    (5, Number),
    (6, Number),
    (7, Number),
    (8, EMPTY),
    (9, Bytes),
];

const COLUMN_META_DATA: &[(i16, Shape)] = &[
    (1, Number),
    (2, List(&Number)),
    (3, List(&Bytes)),
    (4, Number),
    (5, Number),
    (6, Number),
    (7, Number),
    (8, List(&Struct(KEY_VALUE))),
    (9, Number),
    (10, Number),
    (11, Number),
    (12, Struct(STATISTICS)),
    (13, List(&Struct(&[(1, Number), (2, Number), (3, Number)]))),
    (14, Number),
    (15, Number),
    (16, Struct(&[(1, Number), (2, List(&Number)), (3, List(&Number))])),
    (17, Struct(&[(1, Struct(BOUNDING_BOX)), (2, List(&Number))])),
];

pub(super) const STATISTICS: &[(i16, Shape)] = &[
    (1, Bytes),
    (2, Bytes),
    (3, Number),
    (4, Number),
    (5, Bytes),
    (6, Bytes),
    (7, Truth),
    (8, Truth),
    (9, Number),
];

const BOUNDING_BOX: &[(i16, Shape)] = &[
    (1, Double),
    (2, Double),
    (3, Double),
    (4, Double),
    (5, Double),
    (6, Double),
    (7, Double),
    (8, Double),
];

/// Checks a footer. What is damaged in another way is left to the reader.
///
/// # Errors
/// When the footer is not of the kinds it should be, claims more than it holds, its groups lie too deep or their names are too long,
/// or the file cannot be read.
pub(super) fn check(path: &Path) -> Result<()> {
    let (file, mut bytes) = (LocalFile::new(path)?, Vec::new());
    let Some(end) = file.len().checked_sub(TRAILER_BYTES) else { return Ok(()) };
    file.read_at(end, TRAILER_BYTES as usize, &mut bytes)?;
    let Some((&len, magic)) = bytes.split_first_chunk() else { return Ok(()) };
    let len = u32::from_le_bytes(len);
    let Some(start) = end.checked_sub(len.into()).filter(|_| magic == b"PAR1") else {
        return Ok(());
    };
    file.read_at(start, len as usize, &mut bytes)?;
    Compact::new(&bytes).hold(FILE_META_DATA).map_err(|_| {
        let message =
            format!("is damaged, cut short or no Parquet: found no footer at byte {start}");
        Error::data(path.display(), message)
    })?;
    check_schema(&bytes, unpack_bytes_max(file.len())).map_err(|_| {
        let message = format!(
            "claims columns that its footer does not hold, in groups more than {GROUPS_DEPTH_MAX} deep or \
             with names that are too long together, at byte {start}"
        );
        Error::data(path.display(), message).hint("writing it again")
    })
}

/// Checks the groups of columns in a footer that is of the right kinds; the names of all columns with their groups may take
/// `bytes_most`.
fn check_schema(footer: &[u8], bytes_most: u64) -> std::result::Result<(), Fault> {
    let (mut footer, mut field, mut sum) = (Compact::new(footer), 0, 0u64);
    while let Some(kind) = footer.field(&mut field)? {
        if field != SCHEMA {
            footer.skip(kind)?;
            continue;
        }
        let (_, count) = footer.list()?;
        // The groups that an element lies in: how many elements are left in each, and the bytes of all names so far.
        let mut groups: Vec<(u64, u64)> = Vec::new();
        for left in (0..count).rev() {
            let (name, children) = element(&mut footer)?;
            let above = groups.last_mut().map_or(0, |(left, bytes)| {
                *left -= 1;
                *bytes
            });
            let bytes = above + name + NAME_BYTES;
            if children == 0 {
                sum = sum.saturating_add(bytes);
            } else {
                groups.push((children, bytes));
            }
            groups.truncate(groups.iter().rposition(|(left, _)| *left > 0).map_or(0, |at| at + 1));
            if children > left || groups.len() > GROUPS_DEPTH_MAX || sum > bytes_most {
                return Err(Fault::Strange);
            }
        }
    }
    Ok(())
}

/// The length of an element's name, and how many elements are in it.
fn element(schema: &mut Compact<'_>) -> std::result::Result<(u64, u64), Fault> {
    let (mut name, mut children, mut field) = (0, 0, 0);
    while let Some(kind) = schema.field(&mut field)? {
        match field {
            4 => name = schema.text()?.len() as u64,
            5 => children = schema.size()?,
            _ => schema.skip(kind)?,
        }
    }
    Ok((name, children))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A schema of elements with names and numbers of elements in them.
    fn schema(elements: &[(&str, u8)]) -> Vec<u8> {
        let mut bytes = vec![0x29, 0xfc, elements.len() as u8];
        for (name, children) in elements {
            bytes.extend([0x48, name.len() as u8]);
            bytes.extend(name.bytes().chain([0x15, 2 * children, 0]));
        }
        bytes.push(0);
        bytes
    }

    /// Groups in each other, and a column in the last.
    fn nested(depth: usize) -> Vec<u8> {
        let mut elements = vec![("", 1); depth];
        elements.push(("", 0));
        schema(&elements)
    }

    #[test]
    fn groups_may_lie_in_each_other_but_not_without_end() {
        assert_eq!(check_schema(&nested(GROUPS_DEPTH_MAX), u64::MAX), Ok(()));
        assert_eq!(check_schema(&nested(GROUPS_DEPTH_MAX + 1), u64::MAX), Err(Fault::Strange));
        // Beside each other as many as wanted.
        let many = [&[("", 60)][..], &[("", 0); 60]].concat();
        assert_eq!(check_schema(&schema(&many), u64::MAX), Ok(()));
    }

    #[test]
    fn a_group_has_no_more_columns_than_are_there() {
        let claims = |children| schema(&[("root", children), ("a", 0), ("b", 1), ("c", 0)]);
        assert_eq!(check_schema(&claims(2), u64::MAX), Ok(()));
        assert_eq!(check_schema(&claims(4), u64::MAX), Err(Fault::Strange));
    }

    #[test]
    fn names_of_groups_count_for_each_column_in_them() {
        // Two columns with three names, of 10, 20 and 1 bytes; and one with two.
        let elements =
            [("0123456789", 2), ("01234567890123456789", 2), ("a", 0), ("b", 0), ("c", 0)];
        let bytes = 2 * (10 + 20 + 1 + 3 * NAME_BYTES) + 10 + 1 + 2 * NAME_BYTES;
        assert_eq!(check_schema(&schema(&elements), bytes), Ok(()));
        assert_eq!(check_schema(&schema(&elements), bytes - 1), Err(Fault::Strange));
    }

    #[test]
    fn a_field_is_of_the_kind_that_it_should_be() {
        let held = |bytes: &[u8]| Compact::new(bytes).hold(FILE_META_DATA);
        // A version and a number of rows; the same as truths, which take no byte.
        assert_eq!(held(&[0x15, 2, 0x26, 6, 0]), Ok(()));
        assert_eq!(held(&[0x11, 0]), Err(Fault::Strange));
        assert_eq!(held(&[0x31, 0]), Err(Fault::Strange));
        // A schema of one element with a name, of one whose name is a number, and a list of numbers in its place.
        assert_eq!(held(&[0x29, 0x1c, 0x48, 1, b'a', 0, 0]), Ok(()));
        assert_eq!(held(&[0x29, 0x1c, 0x45, 2, 0, 0]), Err(Fault::Strange));
        assert_eq!(held(&[0x29, 0x15, 2, 0]), Err(Fault::Strange));
        // An empty list says of no element what it is.
        assert_eq!(held(&[0x29, 0, 0]), Ok(()));
        // A column's statistics, six levels down: whether the largest is exact, as a truth and as a number.
        let column = |kind: u8| {
            let statistics = [0x3c, 0xcc, 0x70 | kind];
            [&[0x49, 0x1c, 0x19, 0x1c][..], &statistics, &[2; 2][..(kind != 1).into()], &[0; 5]]
                .concat()
        };
        assert_eq!(held(&column(1)), Ok(()));
        assert_eq!(held(&column(5)), Err(Fault::Strange));
    }
}
