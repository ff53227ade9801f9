//! The index of a set of shards: what a scan found in each, kept on disk so that the next start need not scan.
//!
//! The file holds a magic, the length of a JSON header, the header, the records of all shards one after the other,
//! and the SHA-256 of all that. It is written whole or not at all; one that is damaged, or of another version, is as
//! good as none. A shard whose length or time of change is another than the index says is scanned again.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::scan::{Kind, Record, Scanned, scan};
use crate::durable::replace_file;
use crate::error::Result;
use crate::source::blob::{LocalFile, Stamp};
use crate::source::fetch::default_cache_dir;
use crate::source::shard_manifest::hex;

/// With the byte order of the machine in it, in which the records are.
const MAGIC: [u8; 8] = if cfg!(target_endian = "little") { *b"ifwds-1l" } else { *b"ifwds-1b" };

/// Bytes of a header at most: a hundred thousand shards with long names, and all names of classes.
const HEADER_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    shards: Vec<Entry>,
}

/// What the header says about a shard.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Its file's name.
    name: String,
    stamp: Stamp,
    samples: usize,
    kind: Option<Kind>,
    names: Vec<String>,
}

/// Shards that are open, with what is in each.
pub(super) type Indexed = Vec<(LocalFile, Scanned)>;

/// Opens shards: by their index where it is there and right, else by scanning them, by as many threads as the pool
/// has; then an index is left for the next time, where one can be written.
///
/// # Errors
/// When a shard cannot be read, or as [`scan`]; of several errors that of the first shard.
pub(super) fn open(paths: &[PathBuf], cache_dir: Option<&Path>) -> Result<Indexed> {
    let files: Vec<LocalFile> = paths.iter().map(LocalFile::new).collect::<Result<_>>()?;
    let places = places(paths, cache_dir);
    let mut known = places
        .iter()
        .filter_map(|place| load(place))
        .map(|known| still_right(known, &files))
        .max_by_key(|known| known.iter().flatten().count())
        .unwrap_or_default();
    known.resize_with(files.len(), || None);
    let scanned: Vec<(Result<Scanned>, bool)> = files
        .par_iter()
        .zip(known)
        .map(|(file, known)| match known {
            Some(scanned) => (Ok(scanned), false),
            None => (scan(file), true),
        })
        .collect();
    let changed = scanned.iter().any(|(_, new)| *new);
    let scanned = scanned.into_iter().map(|(result, _)| result).collect::<Result<Vec<_>>>()?;
    let indexed: Indexed = files.into_iter().zip(scanned).collect();
    if changed {
        let bytes = encode(&indexed);
        // Where neither place can be written, the next start scans again.
        let _ = places.iter().find(|place| replace_file(place, &bytes).is_ok());
    }
    Ok(indexed)
}

/// Where the index of these shards may lie: beside the first, or in the cache folder.
fn places(paths: &[PathBuf], cache_dir: Option<&Path>) -> Vec<PathBuf> {
    let hash = |part: &dyn Fn(&Path) -> Vec<u8>| {
        let mut hash = Sha256::new();
        for path in paths {
            let bytes = part(path);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hex(&hash.finalize()[..8])
    };
    let first = paths.first().map_or(Path::new("."), PathBuf::as_path);
    let folder = first.parent().filter(|folder| !folder.as_os_str().is_empty());
    let beside = hash(&|path| file_name(path).into_bytes());
    let cached = hash(&|path| {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
        absolute.as_os_str().as_encoded_bytes().to_vec()
    });
    let mut places =
        vec![folder.unwrap_or(Path::new(".")).join(format!(".inflight-index-{beside}"))];
    let cache_dir = cache_dir.map(PathBuf::from).or_else(|| default_cache_dir().ok());
    places.extend(cache_dir.map(|dir| dir.join("indexes").join(cached)));
    places
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn encode(indexed: &Indexed) -> Vec<u8> {
    let entry = |(file, scanned): &(LocalFile, Scanned)| Entry {
        name: file_name(file.path()),
        stamp: file.stamp(),
        samples: scanned.records.len(),
        kind: scanned.kind,
        names: scanned.names.clone(),
    };
    let header = Header { shards: indexed.iter().map(entry).collect() };
    let header = serde_json::to_vec(&header).expect("plain data are JSON");
    let mut bytes = MAGIC.to_vec();
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    for (_, scanned) in indexed {
        bytes.extend_from_slice(bytemuck::cast_slice(&scanned.records));
    }
    let hash = Sha256::digest(&bytes);
    bytes.extend(hash);
    bytes
}

/// What an index says about the shards, where they are still as they were when it was made.
fn still_right(known: Vec<(Entry, Vec<Record>)>, files: &[LocalFile]) -> Vec<Option<Scanned>> {
    let pairs = files.iter().zip(known);
    let scanned = pairs.map(|(file, (entry, records))| {
        let same = entry.stamp == file.stamp() && entry.name == file_name(file.path());
        same.then_some(Scanned { records, kind: entry.kind, names: entry.names })
    });
    scanned.collect()
}

/// What an index says about each shard; nothing if there is none, or it is damaged.
fn load(path: &Path) -> Option<Vec<(Entry, Vec<Record>)>> {
    let mut file =
        File::open(path).ok().filter(|f| f.metadata().is_ok_and(|meta| meta.is_file()))?;
    let len = file.metadata().ok()?.len();
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(len).ok()?).ok()?;
    file.by_ref().take(len).read_to_end(&mut bytes).ok()?;
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    let rest = content.strip_prefix(&MAGIC)?;
    if Sha256::digest(content)[..] != *hash {
        return None;
    }
    let (&header_len, rest) = rest.split_first_chunk()?;
    let header_len = u64::from_le_bytes(header_len);
    if header_len > HEADER_BYTES_MAX {
        return None;
    }
    let (header, mut records) = rest.split_at_checked(header_len as usize)?;
    let header: Header = serde_json::from_slice(header).ok()?;
    let mut known = Vec::with_capacity(header.shards.len());
    for entry in header.shards {
        let own;
        let bytes = entry.samples.checked_mul(size_of::<Record>())?;
        (own, records) = records.split_at_checked(bytes)?;
        known.push((entry, bytemuck::pod_collect_to_vec(own)));
    }
    records.is_empty().then_some(known)
}
