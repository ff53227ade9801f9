//! Where samples come from: the [`Source`] trait, and one file a format.
//!
//! [`open`](open()) turns a name or a path into a [`Dataset`]; a data set known by name is described by a
//! [`Manifest`](manifest::Manifest) and brought by [`fetch`](fetch()) when it is not there.

mod arrays;
pub mod blob;
pub mod cache;
pub mod cifar;
#[cfg(feature = "cloud")]
mod cloud;
mod concat;
mod config;
mod contact_sheet;
mod debian;
pub mod fetch;
mod file;
pub mod folder;
#[cfg(feature = "fetch")]
mod http;
pub(crate) mod identity;
pub mod idx;
mod image_set;
pub mod manifest;
pub(crate) mod metered;
pub mod npy;
mod open;
pub(crate) mod owned;
pub(crate) mod pictures;
mod read_ahead;
pub mod resident;
pub mod safetensors;
pub mod shard_manifest;
mod split;
mod statistics;
pub mod stream;
mod subset;
pub mod supply;
pub mod synthetic;
pub mod table;
pub mod tokens;
pub(crate) mod unpack;
mod viewer;
pub mod webdataset;
mod with_info;

pub use concat::Concat;
pub use config::{DataConfig, Task};
pub(crate) use contact_sheet::Look;
pub use contact_sheet::{contact_sheet, transformed_sheet};
pub use fetch::fetch;
pub use identity::fingerprint;
pub use open::{Dataset, OpenOptions, open, open_rows};
pub use read_ahead::{ReadAhead, Room};
pub use resident::Resident;
pub(crate) use split::check_share;
pub use statistics::{Statistics, statistics};
pub use stream::{Stream, StreamFormat};
pub use subset::Subset;
pub use synthetic::{Cost, Synthetic};
pub use viewer::Viewer;
pub use with_info::WithInfo;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::SampleSpec;
use crate::decode::DecodeSize;
use crate::error::Result;
use table::Fitted;

/// What a source says about its samples beyond their shape.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SourceInfo {
    /// Name for people, for example `fashion-mnist (train)`.
    pub name: String,
    /// Names of the classes, empty if unknown.
    pub class_names: Vec<String>,
    /// Mean of each channel after division by 255 (u8) or as is (f32); empty: unknown, no normalisation.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel; as long as `mean`.
    pub std: Vec<f32>,
    /// At what size image files are decoded.
    #[serde(default)]
    pub decode: DecodeSize,
    /// What made the tokens of text, where they are no bytes: a name, or the path of a file; see
    /// [`Tokenizer::open`](crate::tokenizer::Tokenizer::open).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

/// What the input of a source's samples is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Bytes exactly as they go into a slot.
    #[default]
    Raw,
    /// An image file, which preparation decodes and brings to the shape of the specification.
    Image,
    /// A decoded image, as `[row][column][channel]`, and after it its rows and columns as two little-endian `u32`.
    /// Preparation brings it to the shape of the specification.
    Pixels,
}

/// One sample as a source delivers it: raw bytes, little-endian, exactly as they go into a slot, or an image file; see
/// [`Source::encoding`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The input; raw, it is [`SampleSpec::input_bytes`] long.
    pub input: &'a [u8],
    /// The target.
    pub target: Target<'a>,
}

/// The target of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target<'a> {
    /// A class.
    Class(u32),
    /// Values for regression.
    Values(&'a [f32]),
    /// The token that follows each one of the input: `u32`, little-endian, exactly as they go into a slot.
    Tokens(&'a [u8]),
}

/// The length of a stream: nobody knows it before the stream has ended. Its samples come in the order of their indices,
/// are there from [`Source::prefetch`] until [`Source::applied`], and are the same for the same index only if whoever
/// sends them sends them again. What needs a length, or samples in another order, must refuse a source of this one.
pub const ENDLESS: usize = usize::MAX;

/// The error of being given a stream `for_what`, where it cannot serve.
pub(crate) fn no_stream(source: &dyn Source, for_what: &str) -> crate::Error {
    crate::Error::data(
        &source.info().name,
        format!("found a stream {for_what}, expected data of a known length"),
    )
    .hint("a file or a folder")
}

/// Something with samples that can be read in any order, by many threads at once.
pub trait Source: Send + Sync {
    /// Number of samples; [`ENDLESS`] for a stream.
    fn len(&self) -> usize;

    /// Whether it has no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape and type of every sample.
    fn spec(&self) -> &SampleSpec;

    /// Names and statistics.
    fn info(&self) -> &SourceInfo;

    /// The source whose samples these are, under the same numbers, where this one is put in front of another. What it
    /// does not say itself is then as that one says, but for [`fit_on`](Self::fit_on) and
    /// [`encoded_as`](Self::encoded_as), whose result would not be in front of anything.
    fn behind(&self) -> Option<&dyn Source> {
        None
    }

    /// What [`read`](Self::read) delivers as input.
    fn encoding(&self) -> Encoding {
        self.behind().map_or(Encoding::Raw, Source::encoding)
    }

    /// The class of a sample where it is known without reading the sample; what stratified splits and class weights
    /// are made from.
    fn class(&self, index: usize) -> Option<u32> {
        self.behind()?.class(index)
    }

    /// Where a sample is from, for errors and ledgers: `folder/cat/7.jpg`, `table.csv row 12`. Without it, its index.
    fn origin(&self, index: usize) -> Option<String> {
        self.behind()?.origin(index)
    }

    /// The file that a sample is read from, and its place there (a byte, a row), each place that of one sample alone: by
    /// these it shows that a sample is another one now, or has changed. Asking reads nothing. None for what lies in
    /// memory.
    fn file_of(&self, index: usize) -> Option<(PathBuf, u64)> {
        self.behind()?.file_of(index)
    }

    /// What the encoding of the samples was fitted to, for a table; a model trained on them is of no use without it.
    fn fitted(&self) -> Option<&Arc<Fitted>> {
        self.behind()?.fitted()
    }

    /// The same samples, encoded by what is fitted to the samples `kept` alone, since the others are to be held out.
    /// None: there is nothing to fit, or it was fitted before, with a model that is already there.
    ///
    /// # Errors
    /// When the samples cannot be read.
    fn fit_on(&self, _kept: &[usize]) -> Result<Option<Arc<dyn Source>>> {
        Ok(None)
    }

    /// The same samples, encoded by what another source was fitted to. None: nothing is fitted here.
    ///
    /// # Errors
    /// When they cannot be encoded so.
    fn encoded_as(&self, _fitted: &Arc<Fitted>) -> Result<Option<Arc<dyn Source>>> {
        Ok(None)
    }

    /// Whether the samples `indices` come at all: false once a stream has ended before the last of them, which ends a
    /// run without an error. Called by the prepare thread before [`prefetch`](Self::prefetch), and may wait as that may.
    fn reaches(&self, indices: &[usize]) -> bool {
        self.behind().is_none_or(|source| source.reaches(indices))
    }

    /// The table whose rows the samples are, in their order.
    fn table(&self) -> Option<&Path> {
        self.behind()?.table()
    }

    /// Whether reading a sample may wait for a disk or a network. Then it pays to read ahead, with more threads than
    /// there are cores. Such a source reads into the memory that it is given.
    fn waits(&self) -> bool {
        self.behind().is_some_and(Source::waits)
    }

    /// Told of samples that are going to be read soon, in the order in which they will be, long before
    /// [`prefetch`](Self::prefetch) is called for them; of each that is not, [`skip`](Self::skip) tells. Never waits.
    fn announce(&self, indices: &[usize]) {
        if let Some(source) = self.behind() {
            source.announce(indices);
        }
    }

    /// Told of a sample that was announced and is not going to be read this time, so that nothing is kept for it. Never
    /// waits.
    fn skip(&self, index: usize) {
        if let Some(source) = self.behind() {
            source.skip(index);
        }
    }

    /// Called by the prepare thread before the samples `indices` are read, in the order in which they are going to
    /// be: the place to read ahead, and for a stream to wait for them, which [`read`](Self::read) must not.
    ///
    /// # Errors
    /// When the samples will not come.
    fn prefetch(&self, indices: &[usize]) -> Result<()> {
        self.behind().map_or(Ok(()), |source| source.prefetch(indices))
    }

    /// Called on the device thread, so it must be quick, when the step that used the samples `indices` was applied and
    /// its report made; once for each sample, in the order of the steps, those of an accumulated step together. A step
    /// whose update was skipped for gradients that are not finite counts: its samples had their turn. Samples of
    /// batches that a run did not come to are not applied. For validation: when a batch's result is there.
    fn applied(&self, indices: &[usize]) {
        if let Some(source) = self.behind() {
            source.applied(indices);
        }
    }

    /// Called when nothing more will be read by a run that ends: what waits for a network or a stream gives up.
    fn close(&self) {
        if let Some(source) = self.behind() {
            source.close();
        }
    }

    /// Sample `index`. A source in memory lends its own bytes; one that reads or decodes does so into
    /// `scratch`, which a worker reuses from sample to sample, and lends that.
    ///
    /// # Errors
    /// When the sample cannot be read or decoded; the error names file and sample.
    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>>;
}
