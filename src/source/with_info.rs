//! A source under other names and statistics, or decoded at another size.

use std::sync::Arc;

use crate::batch::SampleSpec;
use crate::error::Result;
use crate::source::table::Fitted;
use crate::source::{Sample, Source, SourceInfo};

/// The samples of another source, with an information of their own.
pub struct WithInfo {
    inner: Arc<dyn Source>,
    info: SourceInfo,
}

impl WithInfo {
    /// The samples of `inner`, of which `info` tells.
    pub fn new(inner: Arc<dyn Source>, info: SourceInfo) -> Self {
        Self { inner, info }
    }

    /// The same information about the samples as they are after a fit, which finds their classes.
    fn retold(&self, inner: Arc<dyn Source>) -> Arc<dyn Source> {
        let class_names = inner.info().class_names.clone();
        Arc::new(Self::new(inner, SourceInfo { class_names, ..self.info.clone() }))
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

    fn fit_on(&self, kept: &[usize]) -> Result<Option<Arc<dyn Source>>> {
        Ok(self.inner.fit_on(kept)?.map(|source| self.retold(source)))
    }

    fn encoded_as(&self, fitted: &Arc<Fitted>) -> Result<Option<Arc<dyn Source>>> {
        Ok(self.inner.encoded_as(fitted)?.map(|source| self.retold(source)))
    }

    fn behind(&self) -> Option<&dyn Source> {
        Some(&*self.inner)
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        self.inner.read(index, scratch)
    }
}
