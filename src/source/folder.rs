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
use crate::source::resident::no_such_sample;
use crate::source::{DataConfig, Encoding, Sample, Source, SourceInfo, Target};
use tree::Tree;
pub(super) use tree::{has_images, subfolders};

/// Rows and columns of images whose files do not agree on a size and for which none is asked for.
pub const IMAGE_SIZE: usize = 224;
/// Mean of each channel of ImageNet's photographs, which trained models expect (torchvision).
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Deviation of each channel of ImageNet's photographs.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Heads of files that are looked at to find out what they have in common: enough to see that they differ, few enough
/// for a disk that has to seek.
const HEADS: usize = 64;
/// Bytes of each of them: more than a thumbnail and a colour profile take.
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
        let info = SourceInfo { name, class_names: classes.to_vec(), mean, std };
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

/// What normalises photographs: grey ones by the mean of the channels.
pub(super) fn normalisation(channels: usize) -> (Vec<f32>, Vec<f32>) {
    let of = |values: [f32; 3]| match channels {
        3 => values.to_vec(),
        _ => vec![values.iter().sum::<f32>() / 3.0; channels],
    };
    (of(IMAGENET_MEAN), of(IMAGENET_STD))
}

/// `[channels, height, width]` as asked for, else as the files have it.
fn shape(tree: &Tree, data: &DataConfig) -> Result<[usize; 3]> {
    if let (Some(size), Some(channels)) = (data.image_size, data.channels) {
        return Ok([channels, size, size]);
    }
    // Files that cannot be read say nothing here; they are an error when their turn comes.
    let heads: Vec<Header> =
        sampled(tree.len(), HEADS).filter_map(|i| head(&tree.path(i))).collect();
    let Some(first) = heads.first() else {
        let path = tree.path(0);
        return Err(Error::data(
            path.display(),
            "found no image that can be read, as in the others",
        ));
    };
    let grey = heads.iter().all(|head| head.grey);
    let same = heads.iter().all(|head| (head.height, head.width) == (first.height, first.width));
    let [height, width] = match (data.image_size, same) {
        (Some(size), _) => [size, size],
        (None, true) => [first.height, first.width],
        (None, false) => [IMAGE_SIZE, IMAGE_SIZE],
    };
    Ok([data.channels.unwrap_or(if grey { 1 } else { 3 }), height, width])
}

/// At most `most` of `len` places, evenly apart, the first one always.
fn sampled(len: usize, most: usize) -> impl Iterator<Item = usize> {
    let count = len.min(most);
    (0..count).map(move |i| i * len / count)
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
