//! A source under other names and statistics.

use std::sync::Arc;

use crate::batch::SampleSpec;
use crate::error::Result;
use crate::source::{Sample, Source, SourceInfo};

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

    fn behind(&self) -> Option<&dyn Source> {
        Some(&*self.inner)
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        self.inner.read(index, scratch)
    }
}
