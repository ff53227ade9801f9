//! Some of the samples of another source: how one file becomes a training and a test part.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::batch::SampleSpec;
use crate::error::{Error, Result};
use crate::source::resident::no_such_sample;
use crate::source::table::Fitted;
use crate::source::{Encoding, Sample, Source, SourceInfo};

/// Samples of another source, renumbered from 0.
pub struct Subset {
    inner: Arc<dyn Source>,
    chosen: Chosen,
    info: SourceInfo,
}

/// Which samples they are.
enum Chosen {
    /// All of a range.
    Range(Range<usize>),
    /// These, in this order; 4 bytes a sample, as there may be millions.
    Rows(Vec<u32>),
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
        Ok(Self { inner, chosen: Chosen::Range(range), info })
    }

    /// The samples `rows` of `inner`, in this order, called `name`.
    ///
    /// # Errors
    /// When `inner` has not all of them, or there are none.
    pub fn of_rows(
        inner: Arc<dyn Source>,
        rows: Vec<u32>,
        name: impl Into<String>,
    ) -> Result<Self> {
        let info = SourceInfo { name: name.into(), ..inner.info().clone() };
        let last = rows.iter().max().map(|&row| row as usize);
        if last.is_none_or(|last| last >= inner.len()) {
            let expected = last.map_or("at least one of them".into(), |last| format!("row {last}"));
            let message = format!("found {} samples, expected {expected}", inner.len());
            return Err(Error::data(&info.name, message));
        }
        Ok(Self { inner, chosen: Chosen::Rows(rows), info })
    }

    /// The place of a sample in the source behind; a sample that is not there has none.
    fn place(&self, index: usize) -> Option<usize> {
        match &self.chosen {
            Chosen::Range(range) => Some(range.start + index).filter(|_| index < range.len()),
            Chosen::Rows(rows) => rows.get(index).map(|&row| row as usize),
        }
    }

    fn places(&self, indices: &[usize]) -> Vec<usize> {
        indices.iter().filter_map(|&index| self.place(index)).collect()
    }
}

impl Source for Subset {
    fn len(&self) -> usize {
        match &self.chosen {
            Chosen::Range(range) => range.len(),
            Chosen::Rows(rows) => rows.len(),
        }
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
        self.inner.class(self.place(index)?)
    }

    /// Where its own number tells nothing about the file, the number in the source behind does.
    fn origin(&self, index: usize) -> Option<String> {
        let place = self.place(index)?;
        let numbered = || match self.chosen {
            Chosen::Range(_) => None,
            Chosen::Rows(_) => Some(format!("sample {place} of {}", self.inner.info().name)),
        };
        self.inner.origin(place).or_else(numbered)
    }

    fn file_of(&self, index: usize) -> Option<(PathBuf, u64)> {
        self.inner.file_of(self.place(index)?)
    }

    fn waits(&self) -> bool {
        self.inner.waits()
    }

    fn announce(&self, indices: &[usize]) {
        self.inner.announce(&self.places(indices));
    }

    fn skip(&self, index: usize) {
        if let Some(place) = self.place(index) {
            self.inner.skip(place);
        }
    }

    fn fitted(&self) -> Option<&Arc<Fitted>> {
        self.inner.fitted()
    }

    fn close(&self) {
        self.inner.close();
    }

    fn prefetch(&self, indices: &[usize]) -> Result<()> {
        self.inner.prefetch(&self.places(indices))
    }

    fn applied(&self, indices: &[usize]) {
        self.inner.applied(&self.places(indices));
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        match self.place(index) {
            Some(place) => self.inner.read(place, scratch),
            None => Err(no_such_sample(&self.info.name, index, self.len())),
        }
    }
}
