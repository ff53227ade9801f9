//! Folders of Parquet files: shards as `inflight convert` writes them, and parts of a table as other programs do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::splits::Splits;
use super::table::{open_joined, open_part};
use super::{Candidate, Dataset, Format, OpenOptions, files_with};
use crate::error::{Error, Result};
use crate::source::shard_manifest::ShardManifest;
use crate::source::{Concat, Source, SourceInfo, WithInfo};

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

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let path = &candidate.path;
    let manifest = ShardManifest::load(path)?;
    if let Some(manifest) = &manifest {
        manifest.check_lengths(path)?;
    }
    // What names say without a manifest: `test-00000-of-00002.parquet`.
    let named = Splits::by_name(parquet_files(path)?);
    let files = |split: &str| -> Vec<PathBuf> {
        match &manifest {
            Some(manifest) => {
                let shards = manifest.splits.get(split).map_or(&[][..], Vec::as_slice);
                shards.iter().map(|shard| path.join(&shard.file)).collect()
            }
            None => match split {
                "val" => named.validation.clone(),
                "test" => named.test.clone(),
                _ => named.train.clone(),
            },
        }
    };
    let unnamed = manifest.as_ref().filter(|manifest| manifest.class_names.is_empty());
    let classes = unnamed.and_then(|manifest| manifest.classes);
    let train = part(path, "train", &files("train"), options, None, classes)?;
    let Some(train) = train else {
        return Err(Error::data(path.display(), "found no files to train on, expected some"));
    };
    let held_out = |split| part(path, split, &files(split), options, Some(&train), classes);
    let (validation, test) = (held_out("val")?, held_out("test")?);
    let told = |source| told(manifest.as_ref(), source);
    let dataset = Dataset::new(path.display().to_string(), path, told(train), test.map(told));
    Ok(Dataset { validation: validation.map(told), ..dataset })
}

/// Images with what the manifest tells of them; rows tell all themselves.
fn told(manifest: Option<&ShardManifest>, source: Arc<dyn Source>) -> Arc<dyn Source> {
    match manifest.filter(|_| source.fitted().is_none()) {
        Some(manifest) => {
            let class_names = manifest.class_names.clone();
            let info = SourceInfo { class_names, ..manifest.info(&*source) };
            Arc::new(WithInfo::new(source, info))
        }
        None => source,
    }
}

/// The files of a part as one source; one that is held out takes shape, classes and encoding of `train`. There are so many
/// `classes` where they have no names and the files do not say.
fn part(
    folder: &Path,
    split: &str,
    files: &[PathBuf],
    options: &OpenOptions<'_>,
    train: Option<&Arc<dyn Source>>,
    classes: Option<usize>,
) -> Result<Option<Arc<dyn Source>>> {
    let fitted = match train {
        Some(train) => train.fitted(),
        None => options.fitted,
    };
    // Means and categories of a table are those of all of its rows.
    if files.len() > 1
        && let Some(table) = open_joined(folder, files, split, options, fitted, classes)?
    {
        return Ok(Some(table));
    }
    let mut parts: Vec<Arc<dyn Source>> = Vec::with_capacity(files.len());
    for path in files {
        let like = train.or(parts.first()).map(|source| &**source);
        parts.push(open_part(path, split, options, fitted, like, classes)?);
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
