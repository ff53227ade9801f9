//! WebDataset shards: one `.tar`, a folder of them, or a pattern such as `shard-{000000..000009}.tar`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::splits::Splits;
use super::{CLASS_NAMES_FILE, Candidate, Dataset, Format, OpenOptions, class_names, info};
use crate::decode;
use crate::error::{Error, Result};
use crate::source::shard_manifest::ShardManifest;
use crate::source::webdataset::{Kind, Shards, WebDataset};
use crate::source::{DataConfig, Source, SourceInfo, image_set};

pub(super) const FORMAT: Format = Format {
    what: "WebDataset shards: a .tar, a folder of them, or shard-{000..009}.tar",
    claims,
    open,
};

/// How files of gzip, bzip2, xz and Zstandard begin.
const PACKED_MAGICS: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"];

/// Where the magic of a tar archive lies.
const MAGIC_AT: usize = 257;

fn is_shard(name: &str) -> bool {
    name.ends_with(".tar")
}

fn claims(candidate: &Candidate) -> Result<bool> {
    if candidate.is_folder {
        return Ok(!Splits::find(&candidate.path, is_shard)?.is_empty());
    }
    let magic = candidate.head.get(MAGIC_AT..MAGIC_AT + 5) == Some(b"ustar");
    let packed = [".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"];
    let packed = packed.iter().any(|extension| candidate.has_extension(extension));
    Ok(magic || packed || candidate.has_extension(".tar"))
}

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let path = &candidate.path;
    if candidate.is_folder {
        return open_splits(path, Splits::find(path, is_shard)?, options);
    }
    let is_tar = candidate.head.get(MAGIC_AT..MAGIC_AT + 5) == Some(b"ustar");
    if !is_tar && PACKED_MAGICS.iter().any(|magic| candidate.head.starts_with(magic)) {
        let message = "is compressed, expected a plain .tar that can be read in any order";
        return Err(Error::data(path.display(), message).hint("unpacking it to a .tar"));
    }
    open_splits(path, Splits { train: vec![path.clone()], ..Default::default() }, options)
}

/// Opens the shards that a pattern with braces stands for.
pub(super) fn open_pattern(pattern: &str, options: &OpenOptions<'_>) -> Result<Dataset> {
    let paths = expand(pattern)?.into_iter().map(PathBuf::from).collect();
    open_splits(Path::new(pattern), Splits::by_name(paths), options)
}

/// Shards of a pattern at most.
const PATTERN_MAX: usize = 100_000;

/// The names that `a-{08..11}-{x,y}` stands for, in order, numbers as wide as they are written.
fn expand(pattern: &str) -> Result<Vec<String>> {
    let wrong = |message: String| {
        Error::data(pattern, message).hint("a range as {000000..000009} or a list as {a,b}")
    };
    let Some((before, rest)) = pattern.split_once('{') else { return Ok(vec![pattern.into()]) };
    let Some((inside, after)) = rest.split_once('}') else {
        return Err(wrong("found { without }".into()));
    };
    let choices: Vec<String> = match inside.split_once("..") {
        None => inside.split(',').map(String::from).collect(),
        Some((first, last)) => {
            let number = |text: &str| {
                text.parse::<usize>()
                    .map_err(|_| wrong(format!("found {{{inside}}}, expected whole numbers")))
            };
            let (from, to) = (number(first)?, number(last)?);
            if to < from || to - from >= PATTERN_MAX {
                let message = format!("expected a rising range of at most {PATTERN_MAX}");
                return Err(wrong(format!("found {{{inside}}}, {message}")));
            }
            let width = first.len();
            (from..=to).map(|number| format!("{number:0width$}")).collect()
        }
    };
    let ends = expand(after)?;
    if choices.len() * ends.len() > PATTERN_MAX {
        return Err(wrong(format!("stands for more than {PATTERN_MAX} shards")));
    }
    Ok(choices
        .iter()
        .flat_map(|choice| ends.iter().map(move |end| format!("{before}{choice}{end}")))
        .collect())
}

/// Opens the shards of all splits, which have their classes in common.
fn open_splits(path: &Path, splits: Splits, options: &OpenOptions<'_>) -> Result<Dataset> {
    let Splits { train, validation, test } = splits.with_training_part();
    let Some(first) = train.first() else {
        return Err(Error::data(path.display(), "found no shards any more"));
    };
    let folder = first.parent().unwrap_or(Path::new(".")).to_owned();
    let manifest = ShardManifest::find(&folder)?;
    if let Some((manifest, of)) = &manifest {
        // A whole data set must be whole; of a part only what is asked for.
        if path.is_dir() && of.canonicalize().ok() == path.canonicalize().ok() {
            manifest.check_lengths(of)?;
        }
        let asked = [&train, &validation, &test].into_iter().flatten();
        let entries = asked.filter_map(|shard| manifest.entry(shard));
        entries.into_iter().try_for_each(|entry| entry.check_length(of))?;
    }
    let shards = |paths: &[PathBuf]| {
        (!paths.is_empty()).then(|| Shards::open(paths, options.cache_dir)).transpose()
    };
    let mut train = Shards::open(&train, options.cache_dir)?;
    let mut held_out = [shards(&validation)?, shards(&test)?];
    let (names, known) = classes_beside(&folder, manifest.as_ref().map(|(manifest, _)| manifest))?;
    let names = if names.is_empty() { train.label_names() } else { names };
    let known = if names.is_empty() { known } else { Some(names.len()) };
    let classes = train.resolve(&names, options.data().classes.or(known))?;
    for shards in held_out.iter_mut().flatten() {
        shards.resolve(&names, Some(classes))?;
    }
    let splits =
        [("train", Some(train)), ("val", held_out[0].take()), ("test", held_out[1].take())];
    let splits = splits.map(|(split, shards)| Some((info(path, split, &names), shards?)));
    let manifest = manifest.as_ref().map(|(manifest, _)| manifest);
    sources(path, splits, classes, manifest, options.data())
}

/// Makes sources of the shards of the splits, the first of which is trained on.
fn sources(
    path: &Path,
    splits: [Option<(SourceInfo, Shards)>; 3],
    classes: usize,
    manifest: Option<&ShardManifest>,
    data: &DataConfig,
) -> Result<Dataset> {
    let mut shape = None;
    let mut sources: Vec<Option<Arc<dyn Source>>> = Vec::new();
    for split in splits {
        let Some((info, shards)) = split else {
            sources.push(None);
            continue;
        };
        let source = if shards.kind() == Kind::Npy {
            WebDataset::arrays(shards, classes, info)?
        } else {
            let found = match shape {
                Some(found) => found,
                None => image_shape(&shards, data)?,
            };
            shape = Some(found);
            let (mean, std) = image_set::normalisation(found[0]);
            WebDataset::images(shards, found, classes, SourceInfo { mean, std, ..info })
        };
        sources.push(Some(match manifest.map(|manifest| manifest.info(&source)) {
            Some(info) => Arc::new(source.with_info(info)),
            None => Arc::new(source),
        }));
    }
    let mut sources = sources.into_iter();
    let mut next = || sources.next().flatten();
    let train = next().expect("there are training shards");
    let validation = next();
    let dataset = Dataset::new(path.display().to_string(), path, train, next());
    Ok(Dataset { validation, ..dataset })
}

/// The shape in which a model sees the images of shards.
fn image_shape(shards: &Shards, data: &DataConfig) -> Result<[usize; 3]> {
    if let Some(shape) = image_set::asked_for(data) {
        return Ok(shape);
    }
    let mut bytes = Vec::new();
    let head = |i: usize| {
        shards.input(i, &mut bytes)?;
        decode::header(&bytes).map_err(|e| e.within(format!("sample {i}")))
    };
    let none = || Error::data("images", "found none, expected some");
    image_set::shape(shards.len(), data, head, none)
}

/// The names of the classes, and their number where there are no names: as the manifest says, or `classes.txt` beside
/// the shards or one folder up.
fn classes_beside(
    folder: &Path,
    manifest: Option<&ShardManifest>,
) -> Result<(Vec<String>, Option<usize>)> {
    if let Some(manifest) = manifest {
        return Ok((manifest.class_names.clone(), manifest.classes));
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if folder.join(CLASS_NAMES_FILE).exists() {
        return Ok((class_names(folder)?, None));
    }
    Ok((class_names(&folder.join(".."))?, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_names() {
        let expanded = |pattern| expand(pattern).expect("a pattern");
        assert_eq!(expanded("a-{08..11}.tar"), ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]);
        assert_eq!(expanded("{x,y}{1..2}"), ["x1", "x2", "y1", "y2"]);
        assert_eq!(expanded("plain.tar"), ["plain.tar"]);
        for pattern in ["{1..", "{3..1}", "{a..b}", "{0..100000}", "{0..999}{0..999}"] {
            expand(pattern).expect_err(pattern);
        }
    }
}
