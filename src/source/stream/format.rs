//! From the bytes of a stream to its samples, one after the other.

use std::io::{BufRead, Read};

use serde::{Deserialize, Serialize};
use tar::Archive;

use super::store::Item;
use crate::error::{Error, Result};
use crate::source::metered::Metered;
use crate::source::webdataset::Kind;
use crate::source::webdataset::member::{Label, Role, split_name};

/// Bytes of one sample, or of a line, at most: far above an image file, far below a machine's memory.
const SAMPLE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a label file at most.
const LABEL_BYTES_MAX: u64 = 1 << 20;

/// How the samples of a stream follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamFormat {
    /// A tar archive, or several one after the other, as WebDataset lays them out: `0001.jpg` and `0001.cls` (or
    /// `.json` with a `label`, or `.txt`) next to each other are a sample. Of several labels the first of these holds.
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

/// The members of a sample, as far as they came. They are told apart and read as those of files are.
struct Members {
    key: Vec<u8>,
    image: Option<Result<Vec<u8>>>,
    /// The label, and how much that member is to be believed: the lowest wins.
    label: Option<(u8, Result<u32>)>,
}

impl Members {
    /// Takes in the member `name`; the error is one of the stream, not of this sample alone.
    fn add(
        &mut self,
        role: Role,
        name: &[u8],
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<()> {
        let item = String::from_utf8_lossy(name);
        match role {
            Role::Input(Kind::Image) => {
                self.image = Some(match self.image {
                    None => Ok(content(entry, &item, SAMPLE_BYTES_MAX)?),
                    Some(_) => Err(Error::data(item, "found a second input of the same sample")
                        .hint("a key of its own for each image")),
                });
            }
            Role::Label(rank) if self.label.as_ref().is_none_or(|(found, _)| rank < *found) => {
                let text = content(entry, &item, LABEL_BYTES_MAX)?;
                let found = label(&text, rank).map_err(|e| e.within(item));
                if let Some(found) = found.transpose() {
                    self.label = Some((rank, found));
                }
            }
            // A stream has no arrays.
            Role::Input(Kind::Npy) | Role::Label(_) | Role::Other => {}
        }
        Ok(())
    }

    /// The sample; nothing if the members are of none, such as a list of files.
    fn item(self) -> Option<Item> {
        if self.image.is_none() && self.label.is_none() {
            return None;
        }
        let origin = format!("{} of the stream", String::from_utf8_lossy(&self.key));
        let missing = |what: &str| {
            Error::data(&origin, format!("found no {what}, expected an image and a label"))
                .hint("files with one key next to each other: 0001.jpg and 0001.cls")
        };
        let image = self.image.unwrap_or_else(|| Err(missing("image")));
        let label = self.label.map_or_else(|| Err(missing("label")), |(_, label)| label);
        let content = image.and_then(|image| Ok((image, label?)));
        Some(Item { content, origin })
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
        let Some((key, role)) = split_name(&name) else { continue };
        if let Some(done) = sample.take_if(|sample| sample.key != key).and_then(Members::item)
            && !take(done)
        {
            return Ok(());
        }
        sample
            .get_or_insert_with(|| Members { key: key.to_vec(), image: None, label: None })
            .add(role, &name, &mut entry)?;
    }
    if let Some(last) = sample.and_then(Members::item) {
        take(last);
    }
    Ok(())
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

/// The class in a member of this rank; nothing if it is JSON that says none.
fn label(text: &[u8], rank: u8) -> Result<Option<u32>> {
    let wrong = |message: String| Err(Error::data("label", message));
    match Label::read(rank, text.len() as u64, &mut &*text) {
        Ok(None) => Ok(None),
        Ok(Some(Label::Number(number))) => Ok(Some(number)),
        Ok(Some(Label::Name(name))) => {
            let found: String = name.chars().take(40).collect();
            wrong(format!("found {found:?}, expected the number of a class"))
        }
        Err(message) => wrong(message),
    }
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

    /// What a stream of these members gives: samples as text with their class, or what is wrong with them.
    fn read_members(members: &[(&str, &[u8])]) -> Vec<Result<(String, u32), String>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, *content).expect("appends");
        }
        let bytes = archive.into_inner().expect("an archive");
        let mut found = Vec::new();
        read_archive(&bytes[..], &mut |item| {
            let text = |(image, class)| (String::from_utf8(image).expect("text"), class);
            found.push(item.content.map(text).map_err(|e| e.to_string()));
            true
        })
        .expect("reads");
        found
    }

    #[test]
    fn a_second_image_of_a_sample_is_its_error() {
        // One key for all, and an image with its mask.
        let found = read_members(&[
            ("sample.jpg", b"first"),
            ("sample.cls", b"1"),
            ("sample.jpg", b"second"),
            ("sample.cls", b"2"),
            ("1.jpg", b"image"),
            ("1.png", b"mask"),
            ("1.cls", b"3"),
            ("2.jpg", b"another"),
            ("2.cls", b"4"),
        ]);
        assert_eq!(found.len(), 3, "{found:?}");
        for (found, name) in found.iter().zip(["sample.jpg", "1.png"]) {
            let error = found.as_ref().expect_err("two images");
            assert!(
                error.contains(&format!("{name}: found a second input of the same sample")),
                "{error}"
            );
        }
        assert_eq!(found[2], Ok(("another".into(), 4)));
    }

    #[test]
    fn labels_of_a_stream_rank_as_those_of_files() {
        let found = read_members(&[
            ("1.cls", b"3"),
            ("1.jpg", b"a"),
            ("1.txt", b"7"),
            ("2.txt", b"a caption"),
            ("2.json", b"{\"label\": 5}"),
            ("2.jpg", b"b"),
            ("README.md", b"of no sample"),
            ("3.jpg", b"c"),
            ("3.cls", b"2"),
            ("3.json", b"{\"width\": 9}"),
            ("4.json", b"{\"width\": 9}"),
            ("4.jpg", b"d"),
            ("4.txt", b"1"),
        ]);
        let expected = [("a", 3), ("b", 5), ("c", 2), ("d", 1)];
        assert_eq!(found, expected.map(|(image, class)| Ok((image.to_string(), class))));
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
