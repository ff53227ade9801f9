//! Random text for language models: what it says costs a step nothing.

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::Result;
use crate::rng::Rng;
use crate::source::resident::no_such_sample;
use crate::source::{Sample, Source, SourceInfo, Target};

/// Samples of tokens at random, held in memory.
pub(super) struct RandomText {
    spec: SampleSpec,
    info: SourceInfo,
    inputs: Vec<u8>,
    targets: Vec<u8>,
    len: usize,
}

impl RandomText {
    /// `len` samples of so many tokens.
    pub fn new(len: usize, context: usize, vocabulary: usize) -> Self {
        let mut rng = Rng::keyed(&[len as u64, context as u64, vocabulary as u64]);
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..len {
            let mut token = || rng.below(vocabulary as u64) as u32;
            let tokens: Vec<u32> = (0..=context).map(|_| token()).collect();
            inputs.extend(tokens[..context].iter().flat_map(|&id| (id as u16).to_le_bytes()));
            targets.extend(tokens[1..].iter().flat_map(|id| id.to_le_bytes()));
        }
        let spec = SampleSpec {
            input_shape: vec![context],
            input_dtype: DType::U16,
            target: TargetSpec::Tokens { len: context, vocabulary, document_end: None },
        };
        let info = SourceInfo { name: "random text".into(), ..Default::default() };
        Self { spec, info, inputs, targets, len }
    }
}

impl Source for RandomText {
    fn len(&self) -> usize {
        self.len
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn read<'a>(&'a self, index: usize, _scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        if index >= self.len {
            return Err(no_such_sample(&self.info.name, index, self.len));
        }
        let part = |all: &'a [u8]| {
            let len = all.len() / self.len;
            &all[index * len..(index + 1) * len]
        };
        Ok(Sample { input: part(&self.inputs), target: Target::Tokens(part(&self.targets)) })
    }
}
