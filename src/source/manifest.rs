//! What is known about a data set before it is there: one TOML file each under `datasets/`, compiled in.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::source::SourceInfo;

/// The manifests that this build knows.
const EMBEDDED: [(&str, &str); 5] = [
    ("fashion-mnist", include_str!("../../datasets/fashion-mnist.toml")),
    ("fashion-mnist-10k", include_str!("../../datasets/fashion-mnist-10k.toml")),
    ("mnist", include_str!("../../datasets/mnist.toml")),
    ("cifar-10", include_str!("../../datasets/cifar-10.toml")),
    ("tinyshakespeare", include_str!("../../datasets/tinyshakespeare.toml")),
];

/// How the files of a data set are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A split is an images file and a labels file, see [`idx`](crate::source::idx).
    Idx,
    /// A split is files of records, see [`cifar`](crate::source::cifar).
    #[serde(rename = "cifar-10")]
    Cifar10,
    /// A split is a file of text or a part of one, whose bytes are tokens; see [`tokens`](crate::source::tokens).
    Text,
}

/// A data set: what it is, where its files come from, and which files make which split.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The name it is opened by, and its folder in the cache.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Where it is described.
    pub homepage: String,
    /// Under which licence it may be used.
    pub licence: String,
    /// How its files are read.
    pub format: Format,
    /// Names of the classes, in the order of the labels; text has none, nor a mean.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Mean of each channel of the training split, after division by 255.
    #[serde(default)]
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    #[serde(default)]
    pub std: Vec<f32>,
    /// The files to fetch.
    pub files: Vec<FileEntry>,
    /// Which files make which split.
    pub splits: Splits,
}

/// One file to fetch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its path in the data set's folder.
    pub path: String,
    /// Where it comes from, tried in order.
    pub sources: Vec<Origin>,
    /// For a `.tar.gz`: what to take out of it. The archive itself is not kept.
    #[serde(default)]
    pub members: Vec<Member>,
}

/// One place a file comes from, and what it must be. The same data may be compressed differently
/// elsewhere, so length and hash belong to the place.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Origin {
    /// Which place.
    #[serde(flatten)]
    pub place: Place,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256, in lower-case hexadecimal digits.
    pub sha256: String,
}

/// A place to fetch from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Place {
    /// Downloaded over HTTP or HTTPS.
    Url {
        /// The address.
        url: String,
    },
    /// Taken out of a Debian package, which `apt-get download` brings.
    Debian {
        /// The package.
        debian: String,
        /// The path inside it, without the leading slash.
        inside: String,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Url { url } => f.write_str(url),
            Place::Debian { debian, .. } => write!(f, "Debian package {debian}"),
        }
    }
}

/// A file inside an archive.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its path, inside the archive and in the data set's folder.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The splits of a data set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Splits {
    /// What to train on.
    pub train: Split,
    /// What to validate with.
    pub test: Option<Split>,
}

/// One split: its files, and which of their samples.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// For IDX: images, then labels. For CIFAR-10: the batches in order. For text: one file.
    pub files: Vec<String>,
    /// Samples left out at the start; bytes, of text.
    #[serde(default)]
    pub skip: usize,
    /// Samples taken from there on; all if not given.
    pub take: Option<usize>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// When the text is not a manifest, or a path in it could leave the data set's folder.
    pub fn parse(text: &str) -> Result<Self> {
        let manifest: Manifest = toml::from_str(text)
            .map_err(|e| Error::data("data set manifest", "cannot be read").caused_by(e))?;
        let files = manifest.files.iter();
        let paths = files.flat_map(|f| {
            std::iter::once(&f.path).chain(f.members.iter().map(|member| &member.path))
        });
        for path in paths.chain([&manifest.name]) {
            let plain = |c| matches!(c, std::path::Component::Normal(_));
            if path.is_empty() || !Path::new(path).components().all(plain) {
                return Err(Error::data(
                    path,
                    "found a path that could leave the data set's folder",
                ));
            }
        }
        Ok(manifest)
    }

    /// What a source of this data set says about itself; `split` is `train` or `test`.
    pub fn info(&self, split: &str) -> SourceInfo {
        SourceInfo {
            name: format!("{} ({split})", self.name),
            class_names: self.classes.clone(),
            mean: self.mean.clone(),
            std: self.std.clone(),
            ..Default::default()
        }
    }

    /// Whether `dir` holds every file, with its right length. Hashes are checked when a file is fetched.
    pub fn is_complete(&self, dir: &Path) -> bool {
        self.files.iter().all(|file| file.is_present(dir))
    }

    /// Where a file of a split lies.
    pub fn locate(&self, dir: &Path, files: &[String]) -> Vec<PathBuf> {
        files.iter().map(|file| dir.join(file)).collect()
    }
}

impl FileEntry {
    /// Whether `dir` holds this file, or what is taken out of it, with the right length.
    pub fn is_present(&self, dir: &Path) -> bool {
        let bytes = |path: &str| std::fs::metadata(dir.join(path)).ok().map(|meta| meta.len());
        if self.members.is_empty() {
            let found = bytes(&self.path);
            return self.sources.iter().any(|source| found == Some(source.bytes));
        }
        self.members.iter().all(|member| bytes(&member.path) == Some(member.bytes))
    }
}

/// The names of all data sets this build knows.
pub fn names() -> Vec<&'static str> {
    EMBEDDED.iter().map(|(name, _)| *name).collect()
}

/// The manifest of a known data set, `None` for an unknown name.
///
/// # Errors
/// Never for a released build: the manifests are part of it.
pub fn by_name(name: &str) -> Result<Option<Manifest>> {
    let found = EMBEDDED.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| Manifest::parse(text)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_whole() {
        for name in names() {
            let manifest = by_name(name).unwrap().expect("a known name");
            assert_eq!(manifest.name, name);
            assert_eq!(manifest.mean.len(), manifest.std.len());
            let classes = if manifest.format == Format::Text { 0 } else { 10 };
            assert_eq!(manifest.classes.len(), classes);
            let fetched: Vec<&str> = manifest
                .files
                .iter()
                .flat_map(|f| f.members.iter().map(|m| &*m.path).chain([&*f.path]))
                .collect();
            let test = manifest.splits.test.iter().flat_map(|s| &s.files);
            for file in manifest.splits.train.files.iter().chain(test) {
                assert!(fetched.contains(&file.as_str()), "{name}: {file} is never fetched");
            }
            for source in manifest.files.iter().flat_map(|f| &f.sources) {
                let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                assert!(source.sha256.len() == 64 && source.sha256.chars().all(hex), "{source:?}");
            }
        }
    }

    #[test]
    fn a_path_that_leaves_the_folder_is_refused() {
        let text = include_str!("../../datasets/mnist.toml");
        for bad in ["../t10k-labels-idx1-ubyte.gz", "/t10k-labels-idx1-ubyte.gz"] {
            let moved =
                text.replace("path = \"t10k-labels-idx1-ubyte.gz\"", &format!("path = \"{bad}\""));
            let error = Manifest::parse(&moved).unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("leave"), "{error}");
        }
    }
}
