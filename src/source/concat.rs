//! Sources one after the other, as one.

use std::path::PathBuf;
use std::sync::Arc;

use crate::batch::SampleSpec;
use crate::error::{Error, Result};
use crate::source::resident::no_such_sample;
use crate::source::{Encoding, Sample, Source, SourceInfo};

/// The samples of several sources of one kind, in order: shards that are files of their own.
pub struct Concat {
    parts: Vec<Arc<dyn Source>>,
    /// The number of the first sample of each part, and last the number of all.
    starts: Vec<usize>,
    info: SourceInfo,
}

impl Concat {
    /// The samples of `parts`, of which `info` tells.
    ///
    /// # Errors
    /// When there is no part, or one has samples of another kind than the first.
    pub fn new(parts: Vec<Arc<dyn Source>>, info: SourceInfo) -> Result<Self> {
        let mut starts = vec![0];
        for part in &parts {
            let (found, expected) = (part.spec(), parts[0].spec());
            if found != expected || part.encoding() != parts[0].encoding() {
                let message =
                    format!("found samples {found:?}, expected {expected:?} as in the first part");
                return Err(Error::data(&part.info().name, message));
            }
            starts.push(starts[starts.len() - 1] + part.len());
        }
        if parts.is_empty() {
            return Err(Error::data(&info.name, "found no parts, expected at least one"));
        }
        Ok(Self { parts, starts, info })
    }

    /// The part that a sample lies in, and its number there.
    fn place(&self, index: usize) -> Option<(&Arc<dyn Source>, usize)> {
        let part = self.starts.partition_point(|&start| start <= index) - 1;
        Some((self.parts.get(part)?, index - self.starts[part]))
    }

    /// Calls `each` with the samples of `indices` that lie in a part, for every part that has some.
    fn by_part(
        &self,
        indices: &[usize],
        mut each: impl FnMut(&dyn Source, &[usize]) -> Result<()>,
    ) -> Result<()> {
        for (part, bounds) in self.parts.iter().zip(self.starts.windows(2)) {
            let inside = indices.iter().filter(|&&index| (bounds[0]..bounds[1]).contains(&index));
            let inside: Vec<usize> = inside.map(|index| index - bounds[0]).collect();
            if !inside.is_empty() {
                each(&**part, &inside)?;
            }
        }
        Ok(())
    }
}

impl Source for Concat {
    fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    fn spec(&self) -> &SampleSpec {
        self.parts[0].spec()
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn encoding(&self) -> Encoding {
        self.parts[0].encoding()
    }

    fn class(&self, index: usize) -> Option<u32> {
        let (part, index) = self.place(index)?;
        part.class(index)
    }

    fn origin(&self, index: usize) -> Option<String> {
        let (part, index) = self.place(index)?;
        part.origin(index)
    }

    fn file_of(&self, index: usize) -> Option<(PathBuf, u64)> {
        let (part, index) = self.place(index)?;
        part.file_of(index)
    }

    fn prefetch(&self, indices: &[usize]) -> Result<()> {
        self.by_part(indices, |part, inside| part.prefetch(inside))
    }

    fn applied(&self, indices: &[usize]) {
        // `applied` itself cannot fail.
        let _ = self.by_part(indices, |part, inside| {
            part.applied(inside);
            Ok(())
        });
    }

    fn close(&self) {
        self.parts.iter().for_each(|part| part.close());
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        match self.place(index) {
            Some((part, index)) => part.read(index, scratch),
            None => Err(no_such_sample(&self.info.name, index, self.len())),
        }
    }
}
