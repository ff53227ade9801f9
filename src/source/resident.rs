//! A source that lies in memory and lends its bytes: what IDX, CIFAR and NPY files are read into.

use crate::batch::{SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::source::{Sample, Source, SourceInfo, Target};

/// The inputs of a [`Resident`] source: bytes as they go into a slot, sample after sample.
pub enum Inputs {
    /// Bytes, for images.
    Bytes(Vec<u8>),
    /// Floats, for arrays.
    Floats(Vec<f32>),
}

impl Inputs {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Inputs::Bytes(bytes) => bytes,
            Inputs::Floats(floats) => bytemuck::cast_slice(floats),
        }
    }
}

/// The targets of a [`Resident`] source, one a sample.
pub enum Targets {
    /// Class labels.
    Classes(Vec<u32>),
    /// Vectors of [`TargetSpec::Values`] length, one after the other.
    Values(Vec<f32>),
}

/// Samples in memory. [`read`](Source::read) copies nothing.
pub struct Resident {
    spec: SampleSpec,
    info: SourceInfo,
    inputs: Inputs,
    targets: Targets,
    len: usize,
}

impl Resident {
    /// A source over `inputs` and `targets`. A label may be out of range here: readers of files check
    /// theirs, and every label is checked again before it goes into a slot.
    ///
    /// # Errors
    /// When the lengths of inputs and targets do not hold the same whole number of samples.
    pub fn new(
        spec: SampleSpec,
        info: SourceInfo,
        inputs: Inputs,
        targets: Targets,
    ) -> Result<Self> {
        let found = match (&targets, &spec.target) {
            (Targets::Classes(labels), TargetSpec::Class { .. }) => labels.len(),
            (Targets::Values(values), TargetSpec::Values { len }) if *len > 0 => {
                if !values.len().is_multiple_of(*len) {
                    return Err(Error::data(
                        &info.name,
                        format!(
                            "found {} target values, expected a multiple of {len}",
                            values.len()
                        ),
                    ));
                }
                values.len() / len
            }
            _ => return Err(Error::data(&info.name, "its targets do not fit its specification")),
        };
        let expected = found.checked_mul(spec.input_bytes());
        if expected != Some(inputs.bytes().len()) || spec.input_bytes() == 0 {
            return Err(Error::data(
                &info.name,
                format!(
                    "found {} bytes of inputs, expected {found} samples of {} bytes",
                    inputs.bytes().len(),
                    spec.input_bytes()
                ),
            ));
        }
        Ok(Self { spec, info, inputs, targets, len: found })
    }

    /// The same samples under other names and statistics.
    pub fn with_info(mut self, info: SourceInfo) -> Self {
        self.info = info;
        self
    }
}

impl Source for Resident {
    fn len(&self) -> usize {
        self.len
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn class(&self, index: usize) -> Option<u32> {
        match &self.targets {
            Targets::Classes(labels) => labels.get(index).copied(),
            Targets::Values(_) => None,
        }
    }

    fn read<'a>(&'a self, index: usize, _scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        if index >= self.len {
            return Err(no_such_sample(&self.info.name, index, self.len));
        }
        let stride = self.spec.input_bytes();
        let input = &self.inputs.bytes()[index * stride..(index + 1) * stride];
        let target = match (&self.targets, &self.spec.target) {
            (Targets::Classes(labels), _) => Target::Class(labels[index]),
            (Targets::Values(values), TargetSpec::Values { len }) => {
                Target::Values(&values[index * len..(index + 1) * len])
            }
            (Targets::Values(_), _) => unreachable!("checked when the source was made"),
        };
        Ok(Sample { input, target })
    }
}

/// The error of reading a sample that is not there.
pub(crate) fn no_such_sample(name: &str, index: usize, len: usize) -> Error {
    Error::data(name, format!("found index {index}, expected below {len}"))
}

/// Checks that every label is below `classes`; the first that is not is named.
pub(crate) fn check_labels(file: &str, labels: &[u32], classes: usize) -> Result<()> {
    match labels.iter().position(|&label| label as usize >= classes) {
        None => Ok(()),
        Some(i) => Err(Error::data(
            file,
            format!("found label {} at sample {i}, expected a label below {classes}", labels[i]),
        )),
    }
}
