//! JSON lines: an object a line, its keys the columns.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::block::{Block, Kind, Wanted};
use super::cells::{Cells, Wrong};
use super::head::{Column, Format, Head, Look, SAMPLE_ROWS, look};
use crate::error::{Error, Result};

/// A value of an object.
#[derive(Debug)]
enum Value<'a> {
    Missing,
    Number(f64),
    Text(Cow<'a, str>),
    Nested,
}

/// What to try where an object does not end in its line.
const ONE_A_LINE: &str = "jq -c ., which puts each object into a line";

/// The pairs of an object, in their order.
struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

/// Says what columns a file has, by its first lines: all keys that occur in them.
pub(super) fn head(path: &Path, sample: &[u8]) -> Result<Head> {
    let (mut names, mut places): (Vec<String>, HashMap<String, usize>) = Default::default();
    let mut fields: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut nested: Vec<bool> = Vec::new();
    for (row, line) in lines(sample).take(SAMPLE_ROWS).enumerate() {
        let Object(pairs) = parse(line).map_err(|e| {
            let error = Error::data(format!("{} row {}", path.display(), row + 1), no_object(&e));
            if e.is_eof() { error.hint(ONE_A_LINE) } else { error }
        })?;
        for (name, value) in pairs {
            let at = places.get(&*name).copied().unwrap_or_else(|| {
                names.push(name.clone().into_owned());
                fields.push(Vec::new());
                nested.push(false);
                places.insert(name.into_owned(), names.len() - 1);
                names.len() - 1
            });
            match value {
                Value::Missing => {}
                Value::Number(number) => fields[at].push(number.to_string().into_bytes()),
                Value::Text(text) => fields[at].push(text.as_bytes().to_vec()),
                Value::Nested => nested[at] = true,
            }
        }
    }
    let column = |((name, fields), nested): ((String, Vec<Vec<u8>>), bool)| {
        let look = match nested {
            true => Look::Other("lists or objects".into()),
            false => look(fields.iter().map(Vec::as_slice)),
        };
        Column { name, look }
    };
    let columns = names.into_iter().zip(fields).zip(nested).map(column).collect();
    let (path, format) = (path.into(), Format::JsonLines);
    Ok(Head { path, format, header: true, columns, class_names: Vec::new() })
}

/// Lines with something in them.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

fn parse(line: &[u8]) -> serde_json::Result<Object<'_>> {
    serde_json::from_slice(line)
}

fn no_object(error: &serde_json::Error) -> String {
    // It ends in a line number, which is always 1 here.
    let text = error.to_string().replace(" at line 1 column", " at byte");
    format!("is not a JSON object: {text}")
}

/// Reads the rows of a piece into a block.
///
/// # Errors
/// When a line is no object, or a value is not what its column holds.
pub(super) fn block(piece: &[u8], wanted: &[Wanted]) -> Result<Block, Wrong> {
    let mut cells = Cells::new(wanted);
    let places: HashMap<&str, usize> =
        wanted.iter().enumerate().rev().map(|(i, column)| (&*column.name, i)).collect();
    for line in lines(piece) {
        let row = cells.rows();
        let wrong = |column: Option<&Wanted>, message| {
            let column = column.map(|column| column.name.clone());
            Wrong { row, column, message, hint: None }
        };
        let Object(pairs) = parse(line).map_err(|e| Wrong {
            hint: e.is_eof().then(|| ONE_A_LINE.into()),
            ..wrong(None, no_object(&e))
        })?;
        let (start, mut next) = (cells.begin_row(), 0);
        for (name, value) in &pairs {
            // Keys mostly come in the same order: it is the one behind the last.
            let guess = wanted.get(next).filter(|column| column.name == *name).map(|_| next);
            let Some(column) = guess.or_else(|| places.get(&**name).copied()) else { continue };
            next = column + 1;
            match (value, wanted[column].kind) {
                (Value::Missing, _) => {}
                (Value::Number(number), Kind::Number) if (*number as f32).is_finite() => {
                    cells.set_number(start, column, *number as f32);
                }
                (Value::Number(number), _) => {
                    cells.set(start, column, number.to_string().as_bytes())?;
                }
                (Value::Text(text), _) => cells.set(start, column, text.as_bytes())?,
                (Value::Nested, _) => {
                    let message = "found a list or an object, expected a number or a text";
                    return Err(wrong(Some(&wanted[column]), message.into()));
                }
            }
        }
    }
    Ok(cells.finish())
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(if value { "true" } else { "false" })))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value<'de>, E> {
        Ok(Value::Number(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(value.into())))
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Nested)
    }
}

/// A key: borrowed unless it has escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(16));
                while let Some((Key(key), value)) = map.next_entry()? {
                    pairs.push((key, value));
                }
                Ok(Object(pairs))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_the_keys_that_occur() {
        let text = "{\"a\": 1, \"b\": \"x\"}\n\n{\"c\": [1], \"a\": null, \"d\": true, \"a\\u0062\": 1.5}\n";
        let head = head(Path::new("t.jsonl"), text.as_bytes()).expect("a table");
        let found: Vec<(&str, &Look)> =
            head.columns.iter().map(|column| (&*column.name, &column.look)).collect();
        let other = Look::Other("lists or objects".into());
        assert_eq!(
            found,
            [
                ("a", &Look::Numbers { whole: true }),
                ("b", &Look::Text),
                ("c", &other),
                ("d", &Look::Text),
                ("ab", &Look::Numbers { whole: false })
            ]
        );
    }

    #[test]
    fn truth_is_told_by_its_name() {
        let wanted = [Wanted { position: 0, name: "d".into(), kind: Kind::Text }];
        let block = block(b"{\"d\": true}\n{\"d\": false}\n", &wanted).expect("rows");
        let found: Vec<_> = block.codes(0).map(|code| block.text(0, code)).collect();
        assert_eq!(
            found.iter().flatten().map(|text| &text[..]).collect::<Vec<_>>(),
            ["true", "false"]
        );
    }
}
