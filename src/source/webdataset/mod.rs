//! Samples in tar archives, as WebDataset lays them out: `0001.jpg` and `0001.cls` next to each other are a sample.
//!
//! Although made to be read from the first byte to the last, such a shard can be read in any order: its headers are
//! scanned once ([`scan`]), and what was found is kept in an index.

mod index;
pub(in crate::source) mod member;
mod scan;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tar::Header;

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::source::arrays::{self, infer_classes};
use crate::source::blob::{Blob, LocalFile};
use crate::source::resident::{Inputs, check_labels, no_such_sample};
use crate::source::{Encoding, Sample, Source, SourceInfo, Target, npy};

pub use scan::{Kind, Record, Scanned, scan};

/// Shards that are open, and where each sample lies in them.
pub struct Shards {
    /// The files.
    files: Vec<LocalFile>,
    /// The number of the first sample of each shard, and last the number of all samples.
    starts: Vec<usize>,
    /// The samples; after [`Shards::resolve`] their labels are classes.
    records: Vec<Record>,
    /// What the inputs are.
    kind: Kind,
    /// The names that labels of each shard stand for; empty if they are numbers.
    names: Vec<Vec<String>>,
}

impl Shards {
    /// Opens shards, in this order. `cache_dir` is where an index goes that cannot lie beside them.
    ///
    /// # Errors
    /// When there is no sample, a shard cannot be read, or as [`scan`].
    pub fn open(paths: &[PathBuf], cache_dir: Option<&Path>) -> Result<Self> {
        let indexed = index::open(paths, cache_dir)?;
        let mut all = Self {
            files: Vec::with_capacity(indexed.len()),
            starts: vec![0],
            records: Vec::new(),
            kind: Kind::Image,
            names: Vec::with_capacity(indexed.len()),
        };
        let mut first: Option<(Kind, bool)> = None;
        for (file, scanned) in indexed {
            if let Some(kind) = scanned.kind {
                let found = (kind, scanned.names.is_empty());
                if first.is_some_and(|first| first != found) {
                    let message = "found other inputs or labels than in the shards before it";
                    return Err(Error::data(file.name(), message).hint("shards of one data set"));
                }
                first = Some(found);
            }
            all.files.push(file);
            all.records.extend(scanned.records);
            all.starts.push(all.records.len());
            all.names.push(scanned.names);
        }
        let Some((kind, _)) = first else {
            let item = paths.first().map_or(String::new(), |path| path.display().to_string());
            let message = "found no samples, expected files as 0001.jpg with 0001.cls beside it";
            return Err(Error::data(item, message));
        };
        Ok(Self { kind, ..all })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What the inputs are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The names among the labels, sorted; empty if they are numbers.
    pub fn label_names(&self) -> Vec<String> {
        let names: std::collections::BTreeSet<&String> = self.names.iter().flatten().collect();
        names.into_iter().cloned().collect()
    }

    /// Turns labels that are names into places in `class_names`, and checks that all are below `classes`, or without
    /// that finds out how many there are.
    ///
    /// # Errors
    /// When a label is none of the classes; names the shard and the sample.
    pub fn resolve(&mut self, class_names: &[String], classes: Option<usize>) -> Result<usize> {
        let places: BTreeMap<&str, u32> =
            class_names.iter().enumerate().map(|(i, name)| (name.as_str(), i as u32)).collect();
        for (shard, names) in self.names.iter().enumerate().filter(|(_, names)| !names.is_empty()) {
            let place = |name: &String| {
                places.get(name.as_str()).copied().ok_or_else(|| {
                    let message = format!(
                        "found label {name}, expected one of the {} classes",
                        class_names.len()
                    );
                    Error::data(self.files[shard].name(), message)
                })
            };
            let places: Vec<u32> = names.iter().map(place).collect::<Result<_>>()?;
            for record in &mut self.records[self.starts[shard]..self.starts[shard + 1]] {
                record.label = places[record.label as usize];
            }
        }
        self.names.iter_mut().for_each(Vec::clear);
        let item = match &self.files[..] {
            [file] => file.name(),
            [first, _] => format!("{} and another shard", first.name()),
            files => format!("{} and {} more shards", files[0].name(), files.len() - 1),
        };
        let labels: Vec<u32> = self.records.iter().map(|record| record.label).collect();
        let classes = match classes {
            Some(classes) => classes,
            None => infer_classes(&item, &labels)?,
        };
        check_labels(&item, &labels, classes)?;
        Ok(classes)
    }

    /// The bytes of a sample's input.
    ///
    /// # Errors
    /// When the shard cannot be read, or has changed.
    pub fn input(&self, index: usize, into: &mut Vec<u8>) -> Result<()> {
        let (file, record) = self.locate(index);
        file.read_at(record.offset, record.len as usize, into)
    }

    fn locate(&self, index: usize) -> (&LocalFile, Record) {
        let shard = self.starts.partition_point(|&start| start <= index) - 1;
        (&self.files[shard], self.records[index])
    }

    /// The name of the member with the input of a sample, as its header says it; of a long one the beginning.
    fn member(&self, index: usize) -> Option<String> {
        let (file, record) = self.locate(index);
        let mut block = Vec::new();
        file.read_at(record.offset.checked_sub(512)?, 512, &mut block).ok()?;
        Some(String::from_utf8_lossy(&Header::from_byte_slice(&block).path_bytes()).into_owned())
    }
}

/// Samples in shards, read where they lie.
pub struct WebDataset {
    shards: Shards,
    spec: SampleSpec,
    info: SourceInfo,
}

impl WebDataset {
    /// Samples of images, to be brought to `input_shape` `[channels, height, width]`.
    pub fn images(
        shards: Shards,
        input_shape: [usize; 3],
        classes: usize,
        info: SourceInfo,
    ) -> Self {
        let (input_shape, target) = (input_shape.to_vec(), TargetSpec::Class { classes });
        Self { shards, spec: SampleSpec { input_shape, input_dtype: DType::U8, target }, info }
    }

    /// Samples of arrays, all of the shape and type of the first.
    ///
    /// # Errors
    /// When the first one cannot be read.
    pub fn arrays(shards: Shards, classes: usize, info: SourceInfo) -> Result<Self> {
        let mut bytes = Vec::new();
        shards.input(0, &mut bytes)?;
        let (_, input_shape, input_dtype) = one_array(&bytes, &origin(&shards, 0))?;
        let spec = SampleSpec { input_shape, input_dtype, target: TargetSpec::Class { classes } };
        Ok(Self { shards, spec, info })
    }

    /// The same samples under other names and statistics.
    pub fn with_info(mut self, info: SourceInfo) -> Self {
        self.info = info;
        self
    }

    /// The shards.
    pub fn shards(&self) -> &Shards {
        &self.shards
    }
}

/// Shard, member and byte of a sample.
fn origin(shards: &Shards, index: usize) -> String {
    let (file, record) = shards.locate(index);
    let member = shards.member(index).unwrap_or_else(|| format!("sample {index}"));
    format!("{}: {member} at byte {}", file.name(), record.offset)
}

/// The array of a sample, by the rules of all arrays.
fn one_array(bytes: &[u8], item: &str) -> Result<(Inputs, Vec<usize>, DType)> {
    let mut array = npy::array(item, bytes)?;
    if array.shape.contains(&0) {
        let message = format!("found shape {:?}, expected at least one element", array.shape);
        return Err(Error::data(item, message));
    }
    array.shape.insert(0, 1);
    arrays::inputs(item, array)
}

impl Source for WebDataset {
    fn len(&self) -> usize {
        self.shards.len()
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn encoding(&self) -> Encoding {
        match self.shards.kind {
            Kind::Image => Encoding::Image,
            Kind::Npy => Encoding::Raw,
        }
    }

    fn waits(&self) -> bool {
        true
    }

    fn class(&self, index: usize) -> Option<u32> {
        self.shards.records.get(index).map(|record| record.label)
    }

    fn origin(&self, index: usize) -> Option<String> {
        (index < self.len()).then(|| origin(&self.shards, index))
    }

    fn file_of(&self, index: usize) -> Option<(PathBuf, u64)> {
        let (file, record) = (index < self.len()).then(|| self.shards.locate(index))?;
        Some((file.path().to_owned(), record.offset))
    }

    fn prefetch(&self, indices: &[usize]) -> Result<()> {
        let mut ranges: BTreeMap<usize, Vec<Range<u64>>> = BTreeMap::new();
        for &index in indices.iter().filter(|&&index| index < self.len()) {
            let shard = self.shards.starts.partition_point(|&start| start <= index) - 1;
            let record = self.shards.records[index];
            let range = record.offset..record.offset + u64::from(record.len);
            ranges.entry(shard).or_default().push(range);
        }
        ranges.iter().try_for_each(|(&shard, ranges)| self.shards.files[shard].prefetch(ranges))
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        if index >= self.len() {
            return Err(no_such_sample(&self.info.name, index, self.len()));
        }
        self.shards.input(index, scratch)?;
        let target = Target::Class(self.shards.records[index].label);
        if self.shards.kind == Kind::Npy {
            let item = || origin(&self.shards, index);
            let (inputs, shape, dtype) =
                one_array(scratch, "array").map_err(|e| e.within(item()))?;
            if (&shape, dtype) != (&self.spec.input_shape, self.spec.input_dtype) {
                let message = format!(
                    "found {dtype:?}{shape:?}, expected {:?}{:?} as in the first sample",
                    self.spec.input_dtype, self.spec.input_shape
                );
                return Err(Error::data(item(), message));
            }
            scratch.clear();
            scratch.extend_from_slice(inputs.bytes());
        }
        Ok(Sample { input: scratch, target })
    }
}
