//! Folders of Parquet shards as `inflight convert` writes them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::table::open_part;
use super::{Candidate, Dataset, Format, OpenOptions};
use crate::error::{Error, Result};
use crate::source::shard_manifest::{ShardEntry, ShardManifest};
use crate::source::{Concat, Source, SourceInfo};

pub(super) const FORMAT: Format =
    Format { what: "a folder of Parquet shards by inflight convert", claims, open };

fn claims(candidate: &Candidate) -> Result<bool> {
    if !candidate.is_folder {
        return Ok(false);
    }
    let manifest = ShardManifest::load(&candidate.path)?;
    Ok(manifest.is_some_and(|manifest| manifest.format == "parquet"))
}

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let path = &candidate.path;
    let Some(manifest) = ShardManifest::load(path)? else {
        return Err(Error::data(path.display(), "found no manifest of shards any more"));
    };
    manifest.check_lengths(path)?;
    let shards = |split: &str| manifest.splits.get(split).map_or(&[][..], Vec::as_slice);
    let train = part(path, "train", shards("train"), options, None)?;
    let Some(train) = train else {
        return Err(Error::data(path.display(), "found no shards to train on, expected some"));
    };
    let held_out = |split| part(path, split, shards(split), options, Some(&train));
    let (validation, test) = (held_out("val")?, held_out("test")?);
    let dataset = Dataset::new(path.display().to_string(), path, train, test);
    Ok(Dataset { validation, ..dataset })
}

/// The shards of a split as one source; one that is held out takes shape, classes and encoding of `train`.
fn part(
    folder: &Path,
    split: &str,
    shards: &[ShardEntry],
    options: &OpenOptions<'_>,
    train: Option<&Arc<dyn Source>>,
) -> Result<Option<Arc<dyn Source>>> {
    let paths: Vec<PathBuf> = shards.iter().map(|shard| folder.join(&shard.file)).collect();
    let mut parts: Vec<Arc<dyn Source>> = Vec::with_capacity(paths.len());
    for path in &paths {
        let fitted = match train {
            Some(train) => train.fitted(),
            None => options.fitted,
        };
        let like = train.or(parts.first()).map(|source| &**source);
        let opened = open_part(path, split, options, fitted, like)?;
        if opened.fitted().is_some() && paths.len() > 1 {
            // Means and categories of a table are those of all of its rows, which lie in one file.
            let message = format!("found a table in {} shards, expected it in one", paths.len());
            return Err(Error::data(folder.display(), message)
                .hint("inflight convert with a larger --shard-size"));
        }
        parts.push(opened);
    }
    match &parts[..] {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        [first, ..] => {
            let name = format!("{} ({split})", folder.display());
            let info = SourceInfo { name, ..first.info().clone() };
            Ok(Some(Arc::new(Concat::new(parts, info)?)))
        }
    }
}
