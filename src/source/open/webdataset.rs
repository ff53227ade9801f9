//! WebDataset shards: one `.tar`, a folder of them, or a pattern such as `shard-{000000..000009}.tar`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    CLASS_NAMES_FILE, Candidate, Dataset, Format, OpenOptions, class_names, files_with, info,
};
use crate::error::{Error, Result};
use crate::source::image_set;
use crate::source::shard_manifest::ShardManifest;
use crate::source::webdataset::{Kind, Shards, WebDataset};
use crate::source::{DataConfig, Source};

pub(super) const FORMAT: Format = Format {
    what: "WebDataset shards: a .tar, a folder of them, or shard-{000..009}.tar",
    claims,
    open,
};

/// Where the magic of a tar archive lies.
const MAGIC_AT: usize = 257;

fn claims(candidate: &Candidate) -> Result<bool> {
    if candidate.is_folder {
        return Ok(!find(&candidate.path)?.is_empty());
    }
    let magic = candidate.head.get(MAGIC_AT..MAGIC_AT + 5) == Some(b"ustar");
    let packed = [".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"];
    let packed = packed.iter().any(|extension| candidate.has_extension(extension));
    Ok(magic || packed || candidate.has_extension(".tar"))
}

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let path = &candidate.path;
    if candidate.is_folder {
        return open_splits(path, &find(path)?, options);
    }
    if !candidate.has_extension(".tar") && !candidate.head.is_empty() {
        let is_tar = candidate.head.get(MAGIC_AT..MAGIC_AT + 5) == Some(b"ustar");
        if !is_tar {
            let message = "is compressed, expected a plain .tar that can be read in any order";
            return Err(Error::data(path.display(), message).hint("unpacking it to a .tar"));
        }
    }
    open_splits(path, &Splits { train: vec![path.clone()], ..Default::default() }, options)
}

/// The shards of each split, in the order of their names.
#[derive(Default)]
struct Splits {
    train: Vec<PathBuf>,
    validation: Vec<PathBuf>,
    test: Vec<PathBuf>,
}

impl Splits {
    fn is_empty(&self) -> bool {
        self.train.is_empty() && self.validation.is_empty() && self.test.is_empty()
    }

    /// Parts shards by what their names say; those that say nothing are trained on.
    fn by_name(paths: Vec<PathBuf>) -> Self {
        let mut splits = Self::default();
        for path in paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
            let mut words = name.split(|c: char| !c.is_ascii_alphabetic());
            splits.of(words.find_map(split_of).unwrap_or("train")).push(path);
        }
        splits
    }

    fn of(&mut self, split: &str) -> &mut Vec<PathBuf> {
        match split {
            "validation" => &mut self.validation,
            "test" => &mut self.test,
            _ => &mut self.train,
        }
    }
}

/// The split that a word stands for.
fn split_of(word: &str) -> Option<&'static str> {
    match word {
        "train" | "training" => Some("train"),
        "val" | "valid" | "validation" => Some("validation"),
        "test" | "testing" => Some("test"),
        _ => None,
    }
}

/// The shards in the folders of splits (`train`, `val`, `test`), or else those in the folder itself.
fn find(folder: &Path) -> Result<Splits> {
    let tars =
        |folder: &Path| files_with(folder, |name| name.ends_with(".tar") && !name.starts_with('.'));
    let mut splits = Splits::default();
    for part in files_with(folder, |name| split_of(&name.to_lowercase()).is_some())? {
        if part.is_dir() {
            let name = part.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            splits.of(split_of(&name).unwrap_or("train")).extend(tars(&part)?);
        }
    }
    if splits.is_empty() { Ok(Splits::by_name(tars(folder)?)) } else { Ok(splits) }
}

/// Opens the shards that a pattern with braces stands for.
pub(super) fn open_pattern(pattern: &str, options: &OpenOptions<'_>) -> Result<Dataset> {
    let paths = expand(pattern)?.into_iter().map(PathBuf::from).collect();
    open_splits(Path::new(pattern), &Splits::by_name(paths), options)
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

/// Opens the training shards, and of the others those to validate with: the test split, or else the validation one.
fn open_splits(path: &Path, splits: &Splits, options: &OpenOptions<'_>) -> Result<Dataset> {
    let held_out = if splits.test.is_empty() { &splits.validation } else { &splits.test };
    // Shards to validate with alone are still something to train on.
    let (train, test) = match (&splits.train[..], &held_out[..]) {
        ([], held_out) => (held_out, &[][..]),
        (train, held_out) => (train, held_out),
    };
    let Some(first) = train.first() else {
        return Err(Error::data(path.display(), "found no shards any more"));
    };
    let folder = first.parent().unwrap_or(Path::new("."));
    let manifest = ShardManifest::find(folder)?;
    if let Some((manifest, folder)) = &manifest {
        train.iter().chain(test).try_for_each(|shard| match manifest.entry(shard) {
            Some(entry) => entry.check_length(folder),
            None => Ok(()),
        })?;
        if path.is_dir() && folder == path {
            manifest.check_lengths(folder)?;
        }
    }
    let mut train_shards = Shards::open(train, options.cache_dir)?;
    let mut test_shards =
        (!test.is_empty()).then(|| Shards::open(test, options.cache_dir)).transpose()?;
    let names = match &manifest {
        Some((manifest, _)) if !manifest.class_names.is_empty() => manifest.class_names.clone(),
        _ => names_beside(folder)?,
    };
    let names = if names.is_empty() { train_shards.label_names() } else { names };
    let known = match (&manifest, names.len()) {
        (_, 1..) => Some(names.len()),
        (Some((manifest, _)), 0) => manifest.classes,
        (None, 0) => None,
    };
    let classes = train_shards.resolve(&names, options.data().classes.or(known))?;
    if let Some(test) = &mut test_shards {
        test.resolve(&names, Some(classes))?;
    }
    let infos = ["train", "test"].map(|split| info(path, split, &names));
    if train_shards.kind() == Kind::Npy {
        let [train_info, test_info] = infos;
        let train = WebDataset::arrays(train_shards, classes, train_info)?;
        let test =
            test_shards.map(|test| WebDataset::arrays(test, classes, test_info)).transpose()?;
        return Ok(dataset(path, train, test));
    }
    open_images(path, [Some(train_shards), test_shards], classes, infos, options.data())
}

fn open_images(
    path: &Path,
    [train, test]: [Option<Shards>; 2],
    classes: usize,
    [train_info, test_info]: [crate::source::SourceInfo; 2],
    data: &DataConfig,
) -> Result<Dataset> {
    let train = train.expect("there are training shards");
    let shape = image_set::shape(train.len(), data, |index, into| train.input(index, into))?;
    let train = WebDataset::images(train, shape, classes, train_info);
    let test = test.map(|test| WebDataset::images(test, shape, classes, test_info));
    let (mean, std) = image_set::mean_and_std(&train)?;
    let with = |source: WebDataset| {
        let info = source.info().clone();
        source.with_info(crate::source::SourceInfo { mean: mean.clone(), std: std.clone(), ..info })
    };
    Ok(dataset(path, with(train), test.map(with)))
}

fn dataset(path: &Path, train: WebDataset, test: Option<WebDataset>) -> Dataset {
    Dataset {
        name: path.display().to_string(),
        path: path.into(),
        train: Arc::new(train),
        test: test.map(|test| Arc::new(test) as Arc<dyn Source>),
    }
}

/// The names in `classes.txt`, beside the shards or one folder up.
fn names_beside(folder: &Path) -> Result<Vec<String>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if folder.join(CLASS_NAMES_FILE).exists() {
        return class_names(folder);
    }
    class_names(&folder.join(".."))
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

    #[test]
    fn names_of_shards_tell_their_split() {
        let paths = ["imagenet-train-01.tar", "val_000.tar", "Test.tar", "contest-1.tar"];
        let splits = Splits::by_name(paths.map(PathBuf::from).to_vec());
        assert_eq!(splits.train, [Path::new("imagenet-train-01.tar"), Path::new("contest-1.tar")]);
        assert_eq!(
            [splits.validation, splits.test],
            [["val_000.tar"], ["Test.tar"]].map(|n| n.map(PathBuf::from).to_vec())
        );
    }
}
