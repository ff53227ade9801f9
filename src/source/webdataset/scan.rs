//! The headers of a shard, read once from the first to the last: where each sample's members lie, and its label.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path};

use bytemuck::{Pod, Zeroable};
use tar::{Archive, EntryType};

use super::member::{Label, Member, Role, split_name};
use crate::error::{Error, Result};
use crate::source::blob::Blob;

/// Where the input of a sample lies, and its label. As it lies in the index, in the byte order of the machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Record {
    /// Where the bytes of the input begin in the shard.
    pub offset: u64,
    /// Length of the input in bytes.
    pub len: u32,
    /// The label: a number, or a place in the shard's list of names.
    pub label: u32,
}

/// What the inputs of samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Image files.
    Image,
    /// Arrays of NumPy.
    Npy,
}

/// What a scan finds in a shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scanned {
    /// The samples, in the order of the shard.
    pub records: Vec<Record>,
    /// What their inputs are; nothing if there are none.
    pub kind: Option<Kind>,
    /// The labels where they are names, as they first occur; empty if they are numbers.
    pub names: Vec<String>,
}

/// Reads the headers of a shard, and the members that hold labels.
///
/// # Errors
/// When it is no tar archive, is cut short, holds a link, a device or a name that leaves its folder, when the sizes
/// in its headers do not lead from one to the next, or when a sample lacks its input or its label. The error names
/// the shard, the byte and the member.
pub fn scan(blob: &dyn Blob) -> Result<Scanned> {
    let mut archive = Archive::new(Window::new(blob));
    let damaged = |at: u64, cause: io::Error| {
        Error::data(
            blob.name(),
            format!("is damaged at byte {at}, expected the header of a member"),
        )
        .hint("making the shard again")
        .caused_by(cause)
    };
    let mut assembly =
        Assembly { blob, scanned: Scanned::default(), places: HashMap::new(), open: None };
    let mut next = 0;
    for entry in archive.entries_with_seek().map_err(|e| damaged(0, e))? {
        let mut entry = entry.map_err(|e| damaged(next, e))?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let name = entry.path().map_err(|e| damaged(next, e))?.into_owned();
        let at = |message: String| refused(blob, &message, &name.to_string_lossy(), next);
        let end = offset.checked_add(size).filter(|&end| end <= blob.len());
        let Some(end) = end else {
            let message = format!(
                "found a member of {size} bytes where the shard has {} left: it is cut short",
                blob.len().saturating_sub(offset)
            );
            return Err(at(message).hint("making the shard again"));
        };
        match entry.header().entry_type() {
            EntryType::Regular => {}
            EntryType::Directory | EntryType::XGlobalHeader => {
                next = end.next_multiple_of(BLOCK_BYTES);
                continue;
            }
            kind => {
                return Err(at(format!("found a {kind:?}, expected only files and folders")));
            }
        }
        if !name.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(at("found a name that leaves its folder".into()));
        }
        assembly.add(&name, Member { header_at: next, offset, size }, &mut entry)?;
        next = end.next_multiple_of(BLOCK_BYTES);
    }
    expect_end(blob, next)?;
    assembly.finish()
}

/// Tar archives consist of blocks of so many bytes.
const BLOCK_BYTES: u64 = 512;

/// Checks that the members are followed by a block of zeros, and that nothing follows those: another archive appended
/// to this one would otherwise be left out in silence.
fn expect_end(blob: &dyn Blob, next: u64) -> Result<()> {
    let mut chunk = Vec::new();
    if next + BLOCK_BYTES > blob.len() {
        let message = format!("ends at byte {}, expected more members or an end", blob.len());
        return Err(
            Error::data(blob.name(), message).hint("making the shard again: it is cut short")
        );
    }
    let mut at = next;
    while at < blob.len() {
        let len = (blob.len() - at).min(1 << 20) as usize;
        blob.read_at(at, len, &mut chunk)?;
        if let Some(found) = chunk.iter().position(|&byte| byte != 0) {
            let message = format!(
                "found data at byte {} behind the end of the archive at byte {next}",
                at + found as u64
            );
            return Err(Error::data(blob.name(), message).hint("one archive a shard"));
        }
        at += len as u64;
    }
    Ok(())
}

/// Puts members together to samples: those that follow each other and share a key.
struct Assembly<'a> {
    blob: &'a dyn Blob,
    scanned: Scanned,
    /// The place of each name among the scanned ones.
    places: HashMap<String, u32>,
    open: Option<Open>,
}

/// The sample whose members are being read.
struct Open {
    key: Vec<u8>,
    header_at: u64,
    input: Option<(Kind, Member)>,
    /// The label, and how much that member is to be believed: the lowest wins.
    label: Option<(u8, Label)>,
}

/// An error about a member or a sample of a shard, with its name and where it begins.
fn refused(blob: &dyn Blob, message: &str, what: &str, at: u64) -> Error {
    Error::data(blob.name(), format!("{message} ({what} at byte {at})"))
}

impl Assembly<'_> {
    fn add(&mut self, name: &Path, member: Member, content: &mut impl Read) -> Result<()> {
        let bytes = name.as_os_str().as_encoded_bytes();
        let Some((key, role)) = split_name(bytes) else { return Ok(()) };
        if self.open.as_ref().is_none_or(|open| open.key != key) {
            self.close()?;
            let (key, header_at) = (key.to_vec(), member.header_at);
            self.open = Some(Open { key, header_at, input: None, label: None });
        }
        let open = self.open.as_mut().expect("opened above");
        let at =
            |message: &str| refused(self.blob, message, &name.to_string_lossy(), member.header_at);
        match role {
            Role::Input(kind) => match &open.input {
                Some((found, _)) if *found == kind => {
                    return Err(at("found a second input of the same sample"));
                }
                // An image is what a model learns from where there is an array beside it.
                Some((Kind::Image, _)) => {}
                _ => open.input = Some((kind, member)),
            },
            Role::Label(rank) if open.label.as_ref().is_none_or(|(found, _)| rank < *found) => {
                if let Some(label) = Label::read(rank, member.size, content).map_err(|e| at(&e))? {
                    open.label = Some((rank, label));
                }
            }
            Role::Label(_) | Role::Other => {}
        }
        Ok(())
    }

    /// Keeps the sample whose members have all been seen.
    fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let at = |message: String| {
            let sample = format!("sample {}", String::from_utf8_lossy(&open.key));
            refused(self.blob, &message, &sample, open.header_at)
        };
        let scanned = &mut self.scanned;
        let (kind, member) = match (open.input, &open.label) {
            (Some(input), _) => input,
            // Members of no sample, such as a list of files.
            (None, None) => return Ok(()),
            (None, Some(_)) => {
                return Err(at("found a label without an image or .npy file beside it".into())
                    .hint("members of a sample next to each other: tar --sort=name"));
            }
        };
        let Some((_, label)) = open.label else {
            return Err(at("found no label, expected a .cls, .json or .txt file beside it".into())
                .hint("members of a sample next to each other: tar --sort=name"));
        };
        if scanned.kind.is_some_and(|found| found != kind) {
            return Err(at("found both images and arrays, expected one of them".into()));
        }
        let len = u32::try_from(member.size).map_err(|_| {
            at(format!("found an input of {} bytes, expected below 4 GiB", member.size))
        })?;
        let named = matches!(label, Label::Name(_));
        if !scanned.records.is_empty() && named == scanned.names.is_empty() {
            return Err(at("found both numbers and names as labels, expected one of them".into()));
        }
        let label = match label {
            Label::Number(number) => number,
            Label::Name(name) => match self.places.get(&name) {
                Some(&place) => place,
                None if scanned.names.len() == NAMES_MAX => {
                    let message = format!(
                        "found more than {NAMES_MAX} different labels, expected names of classes"
                    );
                    return Err(at(message).hint("a .cls file with the class of each sample"));
                }
                None => {
                    let place = scanned.names.len() as u32;
                    scanned.names.push(name.clone());
                    self.places.insert(name, place);
                    place
                }
            },
        };
        scanned.kind = Some(kind);
        scanned.records.push(Record { offset: member.offset, len, label });
        Ok(())
    }

    fn finish(mut self) -> Result<Scanned> {
        self.close()?;
        Ok(self.scanned)
    }
}

/// Names of classes at most: far more are captions, which nothing classifies.
const NAMES_MAX: usize = 10_000;

/// A blob as a stream that can seek, read in pieces: a header with what follows it, not all of a large member.
struct Window<'a> {
    blob: &'a dyn Blob,
    at: u64,
    piece: Vec<u8>,
    piece_at: u64,
}

/// Bytes read at once. Behind the input of a sample lie the header of its label, the label, and the header of the
/// next input: 1.5 KiB.
const PIECE_BYTES: u64 = 4096;

impl<'a> Window<'a> {
    fn new(blob: &'a dyn Blob) -> Self {
        Self { blob, at: 0, piece: Vec::new(), piece_at: 0 }
    }
}

impl Read for Window<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.blob.len() {
            return Ok(0);
        }
        let held = self.piece_at..self.piece_at + self.piece.len() as u64;
        if !held.contains(&self.at) {
            let len = (self.blob.len() - self.at).min(PIECE_BYTES) as usize;
            self.piece_at = self.at;
            self.blob.read_at(self.at, len, &mut self.piece).map_err(io::Error::other)?;
        }
        let from = &self.piece[(self.at - self.piece_at) as usize..];
        let len = from.len().min(into.len());
        into[..len].copy_from_slice(&from[..len]);
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.blob.len().checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
