//! A source under other names and statistics.

use std::sync::Arc;

use crate::batch::SampleSpec;
use crate::error::Result;
use crate::source::{Encoding, Fitted, Sample, Source, SourceInfo};

/// The samples of another source, with an information of their own. For sources of bytes, to which nothing is fitted.
pub struct WithInfo {
    inner: Arc<dyn Source>,
    info: SourceInfo,
}

impl WithInfo {
    /// The samples of `inner`, of which `info` tells.
    pub fn new(inner: Arc<dyn Source>, info: SourceInfo) -> Self {
        Self { inner, info }
    }
}

impl Source for WithInfo {
    fn len(&self) -> usize {
        self.inner.len()
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
        self.inner.class(index)
    }

    fn origin(&self, index: usize) -> Option<String> {
        self.inner.origin(index)
    }

    fn waits(&self) -> bool {
        self.inner.waits()
    }

    fn announce(&self, indices: &[usize]) {
        self.inner.announce(indices);
    }

    fn fitted(&self) -> Option<&Arc<Fitted>> {
        self.inner.fitted()
    }

    fn reaches(&self, indices: &[usize]) -> bool {
        self.inner.reaches(indices)
    }

    fn prefetch(&self, indices: &[usize]) -> Result<()> {
        self.inner.prefetch(indices)
    }

    fn applied(&self, indices: &[usize]) {
        self.inner.applied(indices);
    }

    fn close(&self) {
        self.inner.close();
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        self.inner.read(index, scratch)
    }
}
