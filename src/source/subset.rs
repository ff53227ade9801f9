//! A run of samples of another source: how one file becomes a training and a test split.

use std::ops::Range;
use std::sync::Arc;

use crate::batch::SampleSpec;
use crate::error::{Error, Result};
use crate::source::resident::no_such_sample;
use crate::source::table::Fitted;
use crate::source::{Encoding, Sample, Source, SourceInfo};

/// Samples `range` of another source, renumbered from 0.
pub struct Subset {
    inner: Arc<dyn Source>,
    range: Range<usize>,
    info: SourceInfo,
}

impl Subset {
    /// The samples `range` of `inner`, called `name`.
    ///
    /// # Errors
    /// When `inner` has fewer samples than the range asks for, or the range is empty.
    pub fn new(
        inner: Arc<dyn Source>,
        range: Range<usize>,
        name: impl Into<String>,
    ) -> Result<Self> {
        let info = SourceInfo { name: name.into(), ..inner.info().clone() };
        if range.end > inner.len() || range.is_empty() {
            return Err(Error::data(
                &info.name,
                format!("found {} samples, expected samples {range:?}", inner.len()),
            ));
        }
        Ok(Self { inner, range, info })
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.inner.spec()
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn encoding(&self) -> Encoding {
        self.inner.encoding()
    }

    fn class(&self, index: usize) -> Option<u32> {
        self.inner.class(self.range.start + index)
    }

    fn origin(&self, index: usize) -> Option<String> {
        self.inner.origin(self.range.start + index)
    }

    fn fitted(&self) -> Option<&Arc<Fitted>> {
        self.inner.fitted()
    }

    fn close(&self) {
        self.inner.close();
    }

    fn prefetch(&self, indices: &[usize]) -> Result<()> {
        let shifted: Vec<usize> = indices.iter().map(|i| i + self.range.start).collect();
        self.inner.prefetch(&shifted)
    }

    fn applied(&self, indices: &[usize]) {
        let shifted: Vec<usize> = indices.iter().map(|i| i + self.range.start).collect();
        self.inner.applied(&shifted);
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        if index >= self.len() {
            return Err(no_such_sample(&self.info.name, index, self.len()));
        }
        self.inner.read(self.range.start + index, scratch)
    }
}
