//! Data sets known by name: where their files lie, and what their manifests say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Dataset, OpenOptions};
use crate::error::{Error, Result};
use crate::source::fetch::{default_cache_dir, fetch_manifest};
use crate::source::manifest::{Format, Manifest, Split};
use crate::source::{Source, Subset, cifar, idx};

/// Opens the data set that `manifest` describes, whose files lie in `dir`; text in windows as `options` say.
///
/// # Errors
/// When a file is missing, damaged, or does not fit the others.
pub fn open_manifest(
    manifest: &Manifest,
    dir: &Path,
    options: &OpenOptions<'_>,
) -> Result<Dataset> {
    if manifest.format == Format::Text {
        return super::tokens::open_manifest(manifest, dir, options);
    }
    let test = manifest.splits.test.as_ref();
    let train = &manifest.splits.train;
    let read = |split: &Split, name| read_split(manifest, dir, split, name);
    let (train_source, test_source) = match test {
        Some(test) if test.files == train.files => {
            let source = read(train, "train")?;
            (source.clone(), Some(source))
        }
        Some(test) => {
            let (a, b) = rayon::join(|| read(train, "train"), || read(test, "test"));
            (a?, Some(b?))
        }
        None => (read(train, "train")?, None),
    };
    let test_source = match (test_source, test) {
        (Some(source), Some(split)) => Some(take(source, split, manifest, "test")?),
        _ => None,
    };
    let train = take(train_source, train, manifest, "train")?;
    Ok(Dataset::new(&manifest.name, dir, train, test_source))
}

/// The folder that holds the data set's files: in-tree, in the cache, or fetched now.
pub(super) fn find_or_fetch(manifest: &Manifest, options: &OpenOptions<'_>) -> Result<PathBuf> {
    let cache_dir = match options.cache_dir {
        Some(dir) => dir.to_owned(),
        None => default_cache_dir()?,
    };
    let candidates = [
        Path::new("datasets").join(&manifest.name),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets").join(&manifest.name),
        cache_dir.join(&manifest.name),
    ];
    if let Some(dir) = candidates.iter().find(|dir| manifest.is_complete(dir)) {
        return Ok(dir.clone());
    }
    if options.offline {
        let [.., cached] = &candidates;
        return Err(Error::data(
            &manifest.name,
            format!("is not on this machine (looked in {})", cached.display()),
        )
        .hint(format!("inflight fetch {}", manifest.name)));
    }
    fetch_manifest(manifest, &cache_dir, options.on_progress.unwrap_or(&|_| ()))
}

fn read_split(
    manifest: &Manifest,
    dir: &Path,
    split: &Split,
    name: &str,
) -> Result<Arc<dyn Source>> {
    let files = manifest.locate(dir, &split.files);
    let info = manifest.info(name);
    let source = match (manifest.format, &files[..]) {
        (Format::Idx, [images, labels]) => idx::open(images, labels, manifest.classes.len(), info)?,
        (Format::Idx, _) => {
            return Err(Error::data(
                &manifest.name,
                format!("found {} files in split {name}, expected images and labels", files.len()),
            ));
        }
        (Format::Cifar10, files) => cifar::open(files, info)?,
        (Format::Text, _) => unreachable!("text has a way of its own"),
    };
    Ok(Arc::new(source))
}

/// The part of `source` that `split` asks for.
fn take(
    source: Arc<dyn Source>,
    split: &Split,
    manifest: &Manifest,
    name: &str,
) -> Result<Arc<dyn Source>> {
    if split.skip == 0 && split.take.is_none() {
        return Ok(source);
    }
    let end = split.take.map_or(source.len(), |take| split.skip.saturating_add(take));
    let subset = Subset::new(source, split.skip..end, manifest.info(name).name)?;
    Ok(Arc::new(subset))
}
