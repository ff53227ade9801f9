//! From the bytes of a stream to its samples, one after the other.

use std::io::{BufRead, Read};

use serde::{Deserialize, Serialize};
use tar::Archive;

use super::store::Item;
use crate::error::{Error, Result};
use crate::source::metered::Metered;

/// Bytes of one sample, or of a line, at most: far above an image file, far below a machine's memory.
const SAMPLE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a label file at most.
const LABEL_BYTES_MAX: u64 = 1 << 20;

/// How the samples of a stream follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamFormat {
    /// A tar archive, or several one after the other, as WebDataset lays them out: `0001.jpg` and `0001.cls` (or
    /// `.json` with a `label`, or `.txt`) next to each other are a sample.
    WebDataset,
    /// Samples of one size: the class as `u32`, little-endian, then the bytes of an image, channel after channel.
    Raw,
    /// A sample a line, as `{"input": [0.5, 1, 2], "label": 3}`.
    JsonL,
}

impl StreamFormat {
    /// The format of a stream that begins like this, where it can be told.
    pub(super) fn sniff(head: &[u8]) -> Option<Self> {
        if head.get(257..262) == Some(b"ustar") {
            return Some(Self::WebDataset);
        }
        let text = head.iter().find(|byte| !byte.is_ascii_whitespace());
        (text == Some(&b'{')).then_some(Self::JsonL)
    }
}

/// Takes the samples of a stream; false when no more are wanted.
pub(super) type Take<'a> = &'a mut dyn FnMut(Item) -> bool;

/// Reads a stream to its end, or until no more is wanted. Errors do not name the stream, which the caller knows.
pub(super) fn read(
    format: StreamFormat,
    input_bytes: usize,
    mut stream: impl BufRead,
    take: Take<'_>,
) -> Result<()> {
    match format {
        StreamFormat::WebDataset => read_archive(stream, take),
        StreamFormat::Raw => read_raw(input_bytes, &mut stream, take),
        StreamFormat::JsonL => read_lines(input_bytes / size_of::<f32>(), &mut stream, take),
    }
}

fn read_raw(input_bytes: usize, stream: &mut impl BufRead, take: Take<'_>) -> Result<()> {
    let sample_bytes = size_of::<u32>() + input_bytes;
    for number in 0usize.. {
        let mut bytes = Vec::with_capacity(sample_bytes);
        stream.take(sample_bytes as u64).read_to_end(&mut bytes).map_err(broken)?;
        if bytes.is_empty() {
            break;
        }
        let label = bytes.first_chunk().filter(|_| bytes.len() == sample_bytes);
        let Some(&label) = label else {
            let message = format!("ends after {} of {sample_bytes} bytes", bytes.len());
            return Err(Error::data(format!("sample {number}"), message)
                .hint("the --image-size and --channels that the samples have"));
        };
        let content = Ok((bytes.split_off(size_of::<u32>()), u32::from_le_bytes(label)));
        if !take(Item { content, origin: format!("sample {number} of the stream") }) {
            break;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Line {
    input: Vec<f32>,
    label: u32,
}

fn read_lines(width: usize, stream: &mut impl BufRead, take: Take<'_>) -> Result<()> {
    for number in 1usize.. {
        let origin = format!("line {number} of the stream");
        let Some(line) = next_line(stream).map_err(|e| e.within(&origin))? else { break };
        if line.trim_ascii().is_empty() {
            continue;
        }
        let content = parse_line(&line, width).map_err(|e| e.within(&origin));
        if !take(Item { content, origin }) {
            break;
        }
    }
    Ok(())
}

/// The next line, without bound only in its number.
pub(super) fn next_line(stream: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    stream.take(SAMPLE_BYTES_MAX).read_until(b'\n', &mut line).map_err(broken)?;
    if line.len() as u64 == SAMPLE_BYTES_MAX {
        let message = format!("found a line of {SAMPLE_BYTES_MAX} bytes or more");
        return Err(Error::data("JSON", message).hint("one sample a line"));
    }
    Ok((!line.is_empty()).then_some(line))
}

fn parse_line(line: &[u8], width: usize) -> Result<(Vec<u8>, u32)> {
    let Line { input, label } = line_of(line)?;
    if input.len() != width {
        let message =
            format!("found {} numbers, expected {width} as in the first line", input.len());
        return Err(Error::data("input", message));
    }
    Ok((input.iter().flat_map(|x| x.to_le_bytes()).collect(), label))
}

/// Length of the input in a line.
pub(super) fn line_width(line: &[u8]) -> Result<usize> {
    let width = line_of(line)?.input.len();
    if width == 0 {
        return Err(Error::data("input", "found no numbers, expected at least one"));
    }
    Ok(width)
}

fn line_of(line: &[u8]) -> Result<Line> {
    serde_json::from_slice(line).map_err(|e| {
        Error::data("JSON", format!("{e}; expected {{\"input\": [numbers], \"label\": class}}"))
    })
}

/// The members of a sample, as far as they came.
struct Members {
    key: Vec<u8>,
    image: Option<Vec<u8>>,
    label: Option<Result<u32>>,
}

impl Members {
    fn item(self) -> Item {
        let origin = format!("{} of the stream", String::from_utf8_lossy(&self.key));
        let missing = |what: &str| {
            Error::data(&origin, format!("found no {what}, expected an image and a label"))
                .hint("files with one key next to each other: 0001.jpg and 0001.cls")
        };
        let content = match (self.image, self.label) {
            (Some(image), Some(label)) => label.map(|label| (image, label)),
            (None, _) => Err(missing("image")),
            (_, None) => Err(missing("label")),
        };
        Item { content, origin }
    }
}

fn read_archive(stream: impl Read, take: Take<'_>) -> Result<()> {
    let (stream, meter) = Metered::new(stream);
    let mut archive = Archive::new(stream);
    // Several archives in a row are one stream, as `cat *.tar` makes it.
    archive.set_ignore_zeros(true);
    let damaged = |e| Error::data("archive", "is damaged or cut short").caused_by(e);
    let mut sample: Option<Members> = None;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(damaged)?;
        meter.member(entry.size());
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path_bytes().into_owned();
        let Some((key, extension)) = split_name(&name) else { continue };
        if let Some(done) = sample.take_if(|sample| sample.key != key)
            && !take(done.item())
        {
            return Ok(());
        }
        let sample =
            sample.get_or_insert_with(|| Members { key: key.to_vec(), image: None, label: None });
        let item = || String::from_utf8_lossy(&name).into_owned();
        match &extension[..] {
            b"jpg" | b"jpeg" | b"png" | b"webp" | b"gif" | b"bmp" => {
                sample.image = Some(content(&mut entry, &item(), SAMPLE_BYTES_MAX)?);
            }
            b"cls" | b"txt" | b"json" => {
                let text = content(&mut entry, &item(), LABEL_BYTES_MAX)?;
                sample.label = Some(label(&text, &extension).map_err(|e| e.within(item())));
            }
            _ => {}
        }
    }
    if let Some(last) = sample {
        take(last.item());
    }
    Ok(())
}

/// The key of a member, which ends at the first dot of the file's name, and its extension in small letters.
fn split_name(name: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let file = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].iter().position(|&byte| byte == b'.')?;
    (dot > file).then(|| (&name[..dot], name[dot + 1..].to_ascii_lowercase()))
}

fn content(entry: &mut tar::Entry<'_, impl Read>, item: &str, most: u64) -> Result<Vec<u8>> {
    let size = entry.size();
    if size > most {
        let message = format!("found {size} bytes, expected at most {most}");
        return Err(Error::data(item, message));
    }
    // What is allocated follows what comes, not what the header claims.
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() as u64 != size {
        return Err(Error::data(item, format!("ends after {} of {size} bytes", bytes.len())));
    }
    Ok(bytes)
}

fn label(text: &[u8], extension: &[u8]) -> Result<u32> {
    let wrong = || {
        let found = String::from_utf8_lossy(&text[..text.len().min(40)]).trim().to_owned();
        Error::data("label", format!("found {found:?}, expected the number of a class"))
    };
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    if extension != b"json" {
        return text.trim().parse().map_err(|_| wrong());
    }
    let object: serde_json::Value = serde_json::from_str(text).map_err(|_| wrong())?;
    let value = ["label", "cls", "class"].iter().find_map(|key| object.get(key));
    value.and_then(serde_json::Value::as_u64).and_then(|n| n.try_into().ok()).ok_or_else(wrong)
}

fn broken(error: std::io::Error) -> Error {
    Error::data("stream", "broke off").caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::source::metered::HEADERS_BYTES_MAX;

    #[test]
    fn a_name_without_end_is_not_read_into_memory() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let mut name = io::repeat(b'a').take(16 << 20);
        let stream = header.as_bytes().chain(&mut name);
        let refused = read_archive(stream, &mut |_| true).expect_err("a name of a terabyte");
        assert!(refused.to_string().contains("damaged or cut short"), "{refused}");
        assert_eq!(name.limit(), (16 << 20) - HEADERS_BYTES_MAX + 512);
    }

    #[test]
    fn members_that_are_passed_over_may_be_long() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut put = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, content).expect("appends");
        };
        put("1.cls", b"3");
        put("1.other", &vec![7; 3 << 20]);
        put("1.png", b"an image");
        let bytes = archive.into_inner().expect("an archive");
        let mut found = Vec::new();
        read_archive(&bytes[..], &mut |item| {
            found.push(item.content.expect("a sample"));
            true
        })
        .expect("reads");
        assert_eq!(found, [(b"an image".to_vec(), 3)]);
    }
}
