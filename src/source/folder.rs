//! Folders of image files: one folder a class, or more below it. See [`tree`] for how they are found.

mod tree;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::decode::{self, Header};
use crate::error::{Error, Result};
use crate::source::blob::Stamp;
use crate::source::image_set::{self, normalisation};
use crate::source::resident::no_such_sample;
use crate::source::{DataConfig, Encoding, Sample, Source, SourceInfo, Target};
use tree::Tree;
pub(super) use tree::{has_images, subfolders};

/// Bytes of a file's head, which tells its size: more than a thumbnail and a colour profile take.
const HEAD_BYTES: u64 = 1 << 18;
/// Bytes of a file at most: far above any photograph, below what would fill the memory of a worker.
const FILE_BYTES_MAX: u64 = 1 << 29;

/// Image files in the folders of their classes. Holds names only: a file is opened to be read, and closed again.
pub struct Folder {
    tree: Tree,
    /// How each file was when it was first read, from which on it must not change.
    stamps: Vec<OnceLock<Stamp>>,
    spec: SampleSpec,
    info: SourceInfo,
}

impl Folder {
    /// The images below `root/CLASS`, for each of `classes`, in the order of classes and of names; what their files
    /// leave open is as `data` says. Nothing is normalised here: the means are those of ImageNet.
    ///
    /// # Errors
    /// When a folder cannot be read, leads back into itself, or there is no image in any of them.
    pub fn open(root: &Path, classes: &[String], data: &DataConfig, name: String) -> Result<Self> {
        let tree = Tree::read(root, classes)?;
        if tree.len() == 0 {
            let message = "found no image in the folders of its classes";
            return Err(Error::data(root.display(), message)
                .hint("files that end in .jpg, .png, .webp, .gif or .bmp"));
        }
        let count = data.classes.unwrap_or(classes.len());
        if count < classes.len() {
            let message =
                format!("found {count}, expected one for each of {} folders", classes.len());
            return Err(Error::config("--classes", message));
        }
        let mut stamps = Vec::new();
        stamps.resize_with(tree.len(), OnceLock::new);
        let [channels, height, width] = shape(&tree, data)?;
        let (mean, std) = normalisation(channels);
        let spec = SampleSpec {
            input_shape: vec![channels, height, width],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: count },
        };
        let info =
            SourceInfo { name, class_names: classes.to_vec(), mean, std, ..Default::default() };
        Ok(Self { tree, stamps, spec, info })
    }

    /// The same images for another specification, such as that of the training split.
    #[must_use]
    pub fn with_spec(mut self, spec: SampleSpec) -> Self {
        (self.info.mean, self.info.std) = normalisation(spec.input_shape[0]);
        self.spec = spec;
        self
    }

    /// The first class without an image, if there is one.
    pub fn empty_class(&self) -> Option<&str> {
        let mut names = self.info.class_names.iter().enumerate();
        let empty = names.find(|(class, _)| !self.tree.has_class(*class as u32));
        empty.map(|(_, name)| &**name)
    }

    /// Where sample `index` lies.
    ///
    /// # Panics
    /// If there is no such sample.
    pub fn path(&self, index: usize) -> PathBuf {
        self.tree.path(index)
    }
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.tree.len()
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn encoding(&self) -> Encoding {
        Encoding::Image
    }

    fn waits(&self) -> bool {
        true
    }

    fn class(&self, index: usize) -> Option<u32> {
        (index < self.len()).then(|| self.tree.class(index))
    }

    fn origin(&self, index: usize) -> Option<String> {
        (index < self.len()).then(|| self.path(index).display().to_string())
    }

    fn file_of(&self, index: usize) -> Option<(PathBuf, u64)> {
        (index < self.len()).then(|| (self.path(index), 0))
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let stamp = self
            .stamps
            .get(index)
            .ok_or_else(|| no_such_sample(&self.info.name, index, self.len()))?;
        read(&self.path(index), stamp, scratch)?;
        Ok(Sample { input: scratch, target: Target::Class(self.tree.class(index)) })
    }
}

/// Reads a file that must be as it was when it was first read.
fn read(path: &Path, stamp: &OnceLock<Stamp>, into: &mut Vec<u8>) -> Result<()> {
    let stamp = match stamp.get() {
        Some(stamp) => stamp,
        None => {
            let found = Stamp::look(path)?;
            if found.len() > FILE_BYTES_MAX {
                let message = format!(
                    "found {} bytes, expected an image of at most {FILE_BYTES_MAX}",
                    found.len()
                );
                return Err(Error::data(path.display(), message));
            }
            stamp.get_or_init(|| found)
        }
    };
    stamp.read(path, into)
}

/// `[channels, height, width]` as asked for, else as the files have it.
fn shape(tree: &Tree, data: &DataConfig) -> Result<[usize; 3]> {
    if let Some(shape) = image_set::asked_for(data) {
        return Ok(shape);
    }
    let none =
        || Error::data(tree.path(0).display(), "found no image that can be read, as in the others");
    // Whatever is wrong with the first file, that all are is what there is to tell.
    image_set::shape(tree.len(), data, |i| head(&tree.path(i)).ok_or_else(none), none)
}

/// The head of a file, from its first bytes where those are enough.
fn head(path: &Path) -> Option<Header> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(HEAD_BYTES).read_to_end(&mut bytes).ok()?;
    if let Ok(header) = decode::glance(&bytes) {
        return Some(header);
    }
    read(path, &OnceLock::new(), &mut bytes).ok()?;
    decode::header(&bytes).ok()
}

#[cfg(test)]
mod tests;
