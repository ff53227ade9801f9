//! Image files in memory, for benchmarks and tests of what comes after reading.

use crate::batch::{SampleSpec, TargetSpec};
use crate::error::Result;
use crate::source::{Encoding, Sample, Source, SourceInfo, Target};

/// Image files in memory, as often as wanted: sample `i` is file `i` and of class `i`, each beginning again after the last.
pub(crate) struct Pictures {
    len: usize,
    spec: SampleSpec,
    info: SourceInfo,
    files: Vec<Vec<u8>>,
}

impl Pictures {
    /// `len` samples of `files`, of which there is at least one; fitted to `spec`.
    pub fn new(name: &str, len: usize, spec: SampleSpec, files: Vec<Vec<u8>>) -> Self {
        let info = SourceInfo { name: name.into(), ..Default::default() };
        Self { len, spec, info, files }
    }
}

impl Source for Pictures {
    fn len(&self) -> usize {
        self.len
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

    fn read<'a>(&'a self, index: usize, _scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let TargetSpec::Class { classes } = self.spec.target else {
            unreachable!("pictures have classes")
        };
        let input = &self.files[index % self.files.len()];
        Ok(Sample { input, target: Target::Class((index % classes) as u32) })
    }
}
