//! Shards as WebDataset has them.

use tar::{Builder, EntryType, Header};

use super::content::{Content, name};
use super::writer::{Failure, Hashing};
use crate::error::Error;
use crate::source::{Source, Target};

/// Samples whose bytes are asked for ahead.
const AHEAD: usize = 64;

/// Writes a shard: of each (place, index) the input of sample `index` and its label, under a key that is the place.
///
/// # Errors
/// When a sample cannot be read, or the disk is full or fails.
pub(super) fn write(
    out: &mut Hashing,
    source: &dyn Source,
    samples: impl Iterator<Item = (usize, usize)>,
) -> Result<(), Failure> {
    let content = Content::of(source);
    let mut tar = Builder::new(out);
    let (mut scratch, mut made) = (Vec::new(), Vec::new());
    let mut samples = samples.peekable();
    while samples.peek().is_some() {
        let batch: Vec<(usize, usize)> = samples.by_ref().take(AHEAD).collect();
        source.prefetch(&batch.iter().map(|(_, index)| *index).collect::<Vec<_>>())?;
        for (place, index) in batch {
            let at = |e: Error| e.within(name(source, index));
            let sample = source.read(index, &mut scratch).map_err(at)?;
            let Target::Class(class) = sample.target else {
                return Err(at(Error::data("target", "found no class, expected one")).into());
            };
            let (bytes, extension) =
                content.encode(source.spec(), sample.input, &mut made).map_err(at)?;
            append(&mut tar, &format!("{place:09}.{extension}"), bytes)?;
            append(&mut tar, &format!("{place:09}.cls"), class.to_string().as_bytes())?;
        }
    }
    tar.into_inner()?;
    Ok(())
}

/// Adds a file with nothing in its header that could differ from one conversion to the next.
fn append(tar: &mut Builder<&mut Hashing>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    for set in [Header::set_uid, Header::set_gid, Header::set_mtime] {
        set(&mut header, 0);
    }
    header.set_cksum();
    tar.append(&header, bytes)
}
