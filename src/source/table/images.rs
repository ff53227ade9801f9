//! Image files that a table lists or holds, with a class each.

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::decode::{self, Header};
use crate::error::{Error, Result};
use crate::source::resident::no_such_sample;
use crate::source::{DataConfig, Encoding, Sample, Source, SourceInfo, Target};

use super::labels::Labels;

/// Rows and columns of images that do not agree on a size and for which none is asked for.
const IMAGE_SIZE: usize = 224;

/// Mean and deviation of each channel of ImageNet's photographs (torchvision), as for folders of images.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Images that are looked at to find out what they have in common.
const HEADS: usize = 64;

/// The bytes of image files.
pub(crate) trait Files: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Where one is from: a file and a row.
    fn origin(&self, index: usize) -> String;

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
        let average = |values: [f32; 3]| match input_shape[0] {
            3 => values.to_vec(),
            channels => vec![values.iter().sum::<f32>() / 3.0; channels],
        };
        let info = SourceInfo { name, class_names: names, mean: average(MEAN), std: average(STD) };
        let spec = SampleSpec { input_shape, input_dtype: DType::U8, target };
        Ok(Self { files, labels, spec, info })
    }
}

/// `[channels, height, width]` as asked for, else as the images have it.
fn shape(files: &impl Files, data: &DataConfig, name: &str) -> Result<[usize; 3]> {
    let count = files.len().min(HEADS);
    let mut bytes = Vec::new();
    let mut head = |i: usize| {
        files.read(i * files.len() / count, &mut bytes)?;
        decode::header(&bytes).map_err(|e| e.within(files.origin(i * files.len() / count)))
    };
    // What cannot be read says nothing here; it is an error when its turn comes.
    let heads: Vec<Result<Header>> = (0..count).map(&mut head).collect();
    let good: Vec<&Header> = heads.iter().flatten().collect();
    let Some(first) = good.first() else {
        let none = || Error::data(name, "found no image, expected some");
        return Err(heads.into_iter().find_map(Result::err).unwrap_or_else(none));
    };
    let same = good.iter().all(|head| (head.height, head.width) == (first.height, first.width));
    let [height, width] = match (data.image_size, same) {
        (Some(size), _) => [size, size],
        (None, true) => [first.height, first.width],
        (None, false) => [IMAGE_SIZE, IMAGE_SIZE],
    };
    let grey = good.iter().all(|head| head.grey);
    Ok([data.channels.unwrap_or(if grey { 1 } else { 3 }), height, width])
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

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let Some(&label) = self.labels.get(index) else {
            return Err(no_such_sample(&self.info.name, index, self.len()));
        };
        self.files.read(index, scratch)?;
        Ok(Sample { input: scratch, target: Target::Class(label) })
    }
}
