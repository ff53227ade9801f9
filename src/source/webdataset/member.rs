//! What a member of a shard is, by its name, and what the ones with labels say.

use std::io::Read;

use super::scan::Kind;

/// Where a member lies in its shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// Where its header begins.
    pub header_at: u64,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many there are.
    pub size: u64,
}

/// What a member is to its sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::source) enum Role {
    /// What a model sees.
    Input(Kind),
    /// What it is to tell. Of several the one with the lowest rank holds.
    Label(u8),
    /// Something that nothing here reads.
    Other,
}

/// Ranks of labels by their extension.
const CLS: u8 = 0;
const JSON: u8 = 1;
const TXT: u8 = 2;

/// A label as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::source) enum Label {
    /// The number of a class.
    Number(u32),
    /// The name of a class.
    Name(String),
}

/// Bytes of a `.cls` or `.txt` file at most; what is longer is no name of a class.
const NAME_BYTES_MAX: u64 = 1024;

/// Bytes of a `.json` file at most.
const JSON_BYTES_MAX: u64 = 1 << 20;

/// The keys of a `.json` file that may hold the label, tried in order.
const JSON_KEYS: [&str; 4] = ["label", "cls", "class", "class_id"];

/// The key of a member and what it is: as WebDataset has it, the key is the path up to the first dot of the file's
/// name. Names without a dot, or that begin with one, belong to no sample.
pub(in crate::source) fn split_name(name: &[u8]) -> Option<(&[u8], Role)> {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let file = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].iter().position(|&byte| byte == b'.')?;
    if dot == file {
        return None;
    }
    let role = match &name[dot + 1..].to_ascii_lowercase()[..] {
        b"jpg" | b"jpeg" | b"png" | b"webp" | b"gif" | b"bmp" => Role::Input(Kind::Image),
        b"npy" => Role::Input(Kind::Npy),
        b"cls" => Role::Label(CLS),
        b"json" => Role::Label(JSON),
        b"txt" => Role::Label(TXT),
        _ => Role::Other,
    };
    Some((&name[..dot], role))
}

impl Label {
    /// Reads the label in a member of `size` bytes; nothing if it is JSON without a key that holds one.
    ///
    /// # Errors
    /// What was found instead, and what is expected.
    pub fn read(rank: u8, size: u64, content: &mut impl Read) -> Result<Option<Self>, String> {
        let bytes_max = if rank == JSON { JSON_BYTES_MAX } else { NAME_BYTES_MAX };
        if size > bytes_max {
            return Err(format!("found a label of {size} bytes, expected at most {bytes_max}"));
        }
        let mut text = String::new();
        content
            .take(size)
            .read_to_string(&mut text)
            .map_err(|e| format!("found a label that cannot be read: {e}"))?;
        if rank == JSON { Self::in_json(&text) } else { Self::in_text(&text).map(Some) }
    }

    fn in_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("found an empty label, expected the number or name of a class".into());
        }
        // A number that is too large, below 0 or no whole one is a slip rather than the name of a class.
        if text.parse::<f64>().is_ok_and(f64::is_finite) {
            return text
                .parse()
                .map(Self::Number)
                .map_err(|_| format!("found label {text}, expected a whole number from 0 on"));
        }
        Ok(Self::Name(text.into()))
    }

    fn in_json(text: &str) -> Result<Option<Self>, String> {
        let object: serde_json::Value =
            serde_json::from_str(text).map_err(|e| format!("found JSON that is damaged: {e}"))?;
        let Some(value) = JSON_KEYS.iter().find_map(|key| object.get(key)) else { return Ok(None) };
        match value {
            serde_json::Value::String(name) => Self::in_text(name).map(Some),
            serde_json::Value::Number(number) => Self::in_text(&number.to_string()).map(Some),
            other => Err(format!("found label {other}, expected a number or a name")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_key_and_an_extension() {
        let split = |name: &'static str| split_name(name.as_bytes());
        assert_eq!(split("a/b.c/0001.jpg"), Some((&b"a/b.c/0001"[..], Role::Input(Kind::Image))));
        assert_eq!(split("./7.JPEG"), Some((&b"7"[..], Role::Input(Kind::Image))));
        assert_eq!(split("7.seg.png"), Some((&b"7"[..], Role::Other)));
        assert_eq!(split("7.cls"), Some((&b"7"[..], Role::Label(CLS))));
        assert_eq!([split("README"), split("a/.7.jpg"), split("._7.jpg")], [None; 3]);
    }

    #[test]
    fn a_label_is_a_number_or_a_name() {
        let read = |rank, text: &str| Label::read(rank, text.len() as u64, &mut text.as_bytes());
        assert_eq!(read(CLS, " 17\n"), Ok(Some(Label::Number(17))));
        assert_eq!(read(TXT, "tabby cat"), Ok(Some(Label::Name("tabby cat".into()))));
        assert_eq!(read(JSON, r#"{"label": 3}"#), Ok(Some(Label::Number(3))));
        assert_eq!(read(JSON, r#"{"cls": "cat"}"#), Ok(Some(Label::Name("cat".into()))));
        assert_eq!(read(JSON, r#"{"width": 3}"#), Ok(None));
        for (rank, text, part) in [
            (CLS, "-1", "found label -1, expected a whole number from 0 on"),
            (CLS, "4294967296", "found label 4294967296"),
            (JSON, r#"{"label": 0.5}"#, "found label 0.5"),
            (JSON, r#"{"label": [1]}"#, "found label [1], expected a number or a name"),
            (JSON, "{", "found JSON that is damaged"),
            (TXT, " \n", "found an empty label"),
            (TXT, &"x".repeat(1025), "found a label of 1025 bytes, expected at most 1024"),
        ] {
            let error = read(rank, text).expect_err(text);
            assert!(error.contains(part), "{error}");
        }
    }
}
