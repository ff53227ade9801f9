//! Samples as they reach a slot when no transform follows: image files decoded and fitted.

use crate::error::{Error, Result};
use crate::source::{Encoding, Sample, Source};
use crate::transform::{Image, ImageMemory};

/// Reads samples of any source as they reach a slot, with memory kept from one to the next.
#[derive(Default)]
pub struct Viewer {
    scratch: Vec<u8>,
    memory: ImageMemory,
    planes: Vec<u8>,
}

impl Viewer {
    /// Sample `index` of `source`: raw as it is, an image file decoded and brought to the specification's shape.
    ///
    /// # Errors
    /// When it cannot be read or decoded; the error names the sample.
    pub fn read<'v>(&'v mut self, source: &'v dyn Source, index: usize) -> Result<Sample<'v>> {
        let name = &source.info().name;
        let sample = source.read(index, &mut self.scratch)?;
        if source.encoding() == Encoding::Raw {
            return Ok(sample);
        }
        let &[channels, height, width] = &source.spec().input_shape[..] else {
            let message = format!("found image files for samples {:?}", source.spec().input_shape);
            return Err(Error::data(name, message));
        };
        let item = || source.origin(index).unwrap_or_else(|| format!("sample {index} of {name}"));
        let shape = [channels, height, width];
        let fitted = Image::encoded(sample.input, shape, &mut self.memory).and_then(|mut image| {
            image.fit()?;
            image.write_planes(&mut self.planes)
        });
        fitted.map_err(|e| e.within(item()))?;
        Ok(Sample { input: &self.planes, target: sample.target })
    }
}
