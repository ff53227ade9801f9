//! Image files that a table lists or holds, with a class each.

use std::path::PathBuf;

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::decode;
use crate::error::{Error, Result};
use crate::source::resident::no_such_sample;
use crate::source::{DataConfig, Encoding, Sample, Source, SourceInfo, Target, image_set};

use super::labels::Labels;

/// The bytes of image files.
pub(crate) trait Files: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Where one is from: a file and a row.
    fn origin(&self, index: usize) -> String;

    /// The file that holds one, and its place there.
    fn file_of(&self, index: usize) -> (PathBuf, u64);

    /// Replaces what is in `into` by an image file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, index: usize, into: &mut Vec<u8>) -> Result<()>;
}

/// Image files with a class each.
pub(crate) struct LabelledImages<F> {
    files: F,
    labels: Vec<u32>,
    spec: SampleSpec,
    info: SourceInfo,
}

impl<F: Files> LabelledImages<F> {
    /// Images of `files`, brought to the shape of `like` (that of a training part), else to what `data` asks for, else to
    /// what they have in common.
    ///
    /// # Errors
    /// When no image can be read, or there are more classes than `data` says.
    pub fn new(
        files: F,
        labels: Labels,
        data: &DataConfig,
        like: Option<&SampleSpec>,
        name: String,
    ) -> Result<Self> {
        let Labels { names, labels } = labels;
        let input_shape = match like {
            Some(like) => like.input_shape.clone(),
            None => shape(&files, data, &name)?.to_vec(),
        };
        let target = TargetSpec::Class { classes: data.classes.unwrap_or(0).max(names.len()) };
        let (mean, std) = image_set::normalisation(input_shape[0]);
        let info = SourceInfo { name, class_names: names, mean, std, ..Default::default() };
        let spec = SampleSpec { input_shape, input_dtype: DType::U8, target };
        Ok(Self { files, labels, spec, info })
    }
}

/// `[channels, height, width]` as asked for, else as the images have it.
fn shape(files: &impl Files, data: &DataConfig, name: &str) -> Result<[usize; 3]> {
    let mut bytes = Vec::new();
    let head = |i: usize| {
        files.read(i, &mut bytes)?;
        decode::header(&bytes).map_err(|e| e.within(files.origin(i)))
    };
    let none = || Error::data(name, "found no image, expected some");
    image_set::shape(files.len(), data, head, none)
}

impl<F: Files> Source for LabelledImages<F> {
    fn len(&self) -> usize {
        self.labels.len()
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
        self.labels.get(index).copied()
    }

    fn origin(&self, index: usize) -> Option<String> {
        (index < self.len()).then(|| self.files.origin(index))
    }

    fn file_of(&self, index: usize) -> Option<(PathBuf, u64)> {
        (index < self.len()).then(|| self.files.file_of(index))
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let Some(&label) = self.labels.get(index) else {
            return Err(no_such_sample(&self.info.name, index, self.len()));
        };
        self.files.read(index, scratch)?;
        Ok(Sample { input: scratch, target: Target::Class(label) })
    }
}
