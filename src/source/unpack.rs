//! Takes named files out of a `.tar.gz`; anything in it that could reach outside is refused.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path};

use flate2::bufread::GzDecoder;
use tar::{Archive, Entry};

use crate::error::Result;
use crate::source::fetch::{fail, publish, unwritable};
use crate::source::manifest::Member;
use crate::source::metered::Metered;

/// Headers looked at before giving up: an archive of a data set has some dozen.
const ENTRIES_MAX: usize = 10_000;

/// Unpacks exactly `members` of `archive` into `dir`, each atomically.
///
/// # Errors
/// When the archive is damaged, holds a link, a device or a path that leaves the folder, when a member
/// is missing or of another length, or `dir` cannot be written.
pub(crate) fn unpack(archive: &Path, members: &[Member], dir: &Path) -> Result<()> {
    let damaged = |e: std::io::Error| fail(archive.display(), "is a damaged archive").caused_by(e);
    let file = File::open(archive).map_err(damaged)?;
    let (unpacked, meter) = Metered::new(GzDecoder::new(BufReader::new(file)));
    let mut tar = Archive::new(unpacked);
    let mut missing: Vec<&Member> = members.iter().collect();
    for (count, entry) in tar.entries().map_err(damaged)?.enumerate() {
        let mut entry = entry.map_err(damaged)?;
        meter.member(entry.size());
        if count == ENTRIES_MAX {
            return Err(fail(archive.display(), format!("found over {ENTRIES_MAX} entries")));
        }
        let path = entry.path().map_err(damaged)?.into_owned();
        check_entry(archive, &path, &entry)?;
        let Some(at) = missing.iter().position(|m| Path::new(&m.path) == path) else { continue };
        let member = missing.swap_remove(at);
        extract(archive, &mut entry, member, dir)?;
    }
    match missing.first() {
        None => Ok(()),
        Some(member) => Err(fail(archive.display(), format!("has no {}", member.path))),
    }
}

fn check_entry<R: Read>(archive: &Path, path: &Path, entry: &Entry<'_, R>) -> Result<()> {
    let inside = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    let kind = entry.header().entry_type();
    if inside && (kind.is_file() || kind.is_dir()) {
        return Ok(());
    }
    let found = if inside { format!("a {kind:?}") } else { "a path that leaves its folder".into() };
    Err(fail(
        archive.display(),
        format!("found {found} ({}), expected only files and folders", path.display()),
    ))
}

fn extract<R: Read>(
    archive: &Path,
    entry: &mut Entry<'_, R>,
    member: &Member,
    dir: &Path,
) -> Result<()> {
    if entry.size() != member.bytes {
        return Err(fail(
            archive.display(),
            format!("found {} of {} bytes, expected {}", member.path, entry.size(), member.bytes),
        ));
    }
    // The data set's folder is locked while it is fetched, so one name will do.
    let part = dir.join(".member.part");
    let mut file = File::create(&part).map_err(|e| unwritable(&part, e))?;
    let written = std::io::copy(&mut entry.take(member.bytes), &mut file).map_err(|e| {
        fail(archive.display(), format!("cannot unpack {}", member.path)).caused_by(e)
    })?;
    if written != member.bytes {
        return Err(fail(archive.display(), format!("is cut short in {}", member.path)));
    }
    publish(&part, &dir.join(&member.path))
}
