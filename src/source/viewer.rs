//! Samples as they reach a slot: image files decoded, transforms applied, and what comes of that fitted.

use crate::batch::DType;
use crate::error::{Error, Result};
use crate::source::{Encoding, Sample, Source};
use crate::transform::{Image, ImageMemory, Transform, apply_all};

/// Reads samples of any source as they reach a slot, with memory kept from one to the next.
#[derive(Default)]
pub struct Viewer {
    transforms: Vec<Box<dyn Transform>>,
    seed: u64,
    scratch: Vec<u8>,
    memory: ImageMemory,
    planes: Vec<u8>,
}

impl Viewer {
    /// A viewer of samples that go through `transforms`, in order, in a run of this `seed`. The default one has none.
    pub fn of(transforms: Vec<Box<dyn Transform>>, seed: u64) -> Self {
        Self { transforms, seed, ..Default::default() }
    }

    /// Sample `index` of `source` as it reaches a slot in the first epoch; without transforms, in every one.
    ///
    /// # Errors
    /// When it cannot be read, decoded or transformed; the error names the sample.
    pub fn read<'v>(&'v mut self, source: &'v dyn Source, index: usize) -> Result<Sample<'v>> {
        self.draw(source, index, 0)
    }

    /// Sample `index` of `source` as it reaches a slot in this `epoch`, from 0.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn draw<'v>(
        &'v mut self,
        source: &'v dyn Source,
        index: usize,
        epoch: u64,
    ) -> Result<Sample<'v>> {
        let name = &source.info().name;
        let sample = source.read(index, &mut self.scratch)?;
        if source.encoding() == Encoding::Raw && self.transforms.is_empty() {
            return Ok(sample);
        }
        let spec = source.spec();
        let (&[channels, height, width], DType::U8) = (&spec.input_shape[..], spec.input_dtype)
        else {
            let (dtype, shape) = (spec.input_dtype, &spec.input_shape);
            let message = format!("found samples {dtype:?}{shape:?}, expected images of bytes");
            return Err(Error::data(name, message));
        };
        let item = || source.origin(index).unwrap_or_else(|| format!("sample {index} of {name}"));
        let shape = [channels, height, width];
        let (memory, planes) = (&mut self.memory, &mut self.planes);
        let image = match source.encoding() {
            Encoding::Image => Image::encoded(sample.input, shape, memory)
                .map(|image| image.decoded_at(source.info().decode)),
            Encoding::Pixels => super::cache::pixels(sample.input, shape[0])
                .map(|(pixels, size)| Image::decoded(pixels, size, shape, memory)),
            Encoding::Raw => Ok(Image::raw(shape, sample.input, memory)),
        };
        let key = [self.seed, epoch, index as u64];
        let drawn = image.and_then(|mut image| {
            apply_all(&self.transforms, 0..self.transforms.len(), &mut image, key, |_| ())?;
            image.fit()?;
            image.write_planes(planes)
        });
        drawn.map_err(|e| e.within(item()))?;
        Ok(Sample { input: planes, target: sample.target })
    }
}
