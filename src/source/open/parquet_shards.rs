//! Folders of Parquet files: shards as `inflight convert` writes them, and parts of a table as other programs do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::table::{open_joined, open_part};
use super::{Candidate, Dataset, Format, OpenOptions, files_with};
use crate::error::{Error, Result};
use crate::source::shard_manifest::ShardManifest;
use crate::source::{Concat, Source, SourceInfo};

pub(super) const FORMAT: Format = Format { what: "a folder of Parquet files", claims, open };

fn claims(candidate: &Candidate) -> Result<bool> {
    if !candidate.is_folder {
        return Ok(false);
    }
    match ShardManifest::load(&candidate.path)? {
        Some(manifest) => Ok(manifest.format == "parquet"),
        None => Ok(!parquet_files(&candidate.path)?.is_empty()),
    }
}

fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>> {
    files_with(folder, |name| !name.starts_with('.') && name.ends_with(".parquet"))
}

/// Words in the names of files that say of which part they are; all other files are trained on.
const PART_WORDS: [(&str, &str); 4] =
    [("test", "test"), ("val", "val"), ("valid", "val"), ("validation", "val")];

/// What the name of a file without a manifest says about its part: `test-00000-of-00002.parquet`.
fn named_part(path: &Path) -> &'static str {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    let part = |word| PART_WORDS.iter().find(|(known, _)| *known == word).map(|(_, part)| *part);
    words.find_map(part).unwrap_or("train")
}

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let path = &candidate.path;
    let manifest = ShardManifest::load(path)?;
    if let Some(manifest) = &manifest {
        manifest.check_lengths(path)?;
    }
    let named = parquet_files(path)?;
    let files = |split: &str| -> Vec<PathBuf> {
        match &manifest {
            Some(manifest) => {
                let shards = manifest.splits.get(split).map_or(&[][..], Vec::as_slice);
                shards.iter().map(|shard| path.join(&shard.file)).collect()
            }
            None => named.iter().filter(|file| named_part(file) == split).cloned().collect(),
        }
    };
    let train = part(path, "train", &files("train"), options, None)?;
    let Some(train) = train else {
        return Err(Error::data(path.display(), "found no files to train on, expected some"));
    };
    let held_out = |split| part(path, split, &files(split), options, Some(&train));
    let (validation, test) = (held_out("val")?, held_out("test")?);
    let dataset = Dataset::new(path.display().to_string(), path, train, test);
    Ok(Dataset { validation, ..dataset })
}

/// The files of a part as one source; one that is held out takes shape, classes and encoding of `train`.
fn part(
    folder: &Path,
    split: &str,
    files: &[PathBuf],
    options: &OpenOptions<'_>,
    train: Option<&Arc<dyn Source>>,
) -> Result<Option<Arc<dyn Source>>> {
    let fitted = match train {
        Some(train) => train.fitted(),
        None => options.fitted,
    };
    // Means and categories of a table are those of all of its rows.
    if files.len() > 1
        && let Some(table) = open_joined(folder, files, split, options, fitted)?
    {
        return Ok(Some(table));
    }
    let mut parts: Vec<Arc<dyn Source>> = Vec::with_capacity(files.len());
    for path in files {
        let like = train.or(parts.first()).map(|source| &**source);
        parts.push(open_part(path, split, options, fitted, like)?);
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
