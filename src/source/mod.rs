//! Where samples come from: the [`Source`] trait, and one file a format.
//!
//! [`open`](open()) turns a name or a path into a [`Dataset`]; a data set known by name is described by a
//! [`Manifest`](manifest::Manifest) and brought by [`fetch`](fetch()) when it is not there.

pub mod cifar;
mod contact_sheet;
mod debian;
pub mod fetch;
mod file;
#[cfg(feature = "fetch")]
mod http;
pub mod idx;
pub mod manifest;
pub mod npy;
mod open;
pub mod resident;
mod statistics;
mod subset;
pub mod synthetic;
mod unpack;

pub use contact_sheet::contact_sheet;
pub use fetch::fetch;
pub use open::{Dataset, OpenOptions, open};
pub use resident::Resident;
pub use statistics::{Statistics, statistics};
pub use subset::Subset;
pub use synthetic::{Cost, Synthetic};

use crate::batch::SampleSpec;
use crate::error::Result;

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
}

/// One sample as a source delivers it: raw bytes, little-endian, exactly as they go into a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The input, [`SampleSpec::input_bytes`] long unless a transform follows.
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
}

/// Something with samples that can be read in any order, by many threads at once.
pub trait Source: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether it has no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape and type of every sample.
    fn spec(&self) -> &SampleSpec;

    /// Names and statistics.
    fn info(&self) -> &SourceInfo;

    /// Sample `index`. A source in memory lends its own bytes; one that reads or decodes does so into
    /// `scratch`, which a worker reuses from sample to sample, and lends that.
    ///
    /// # Errors
    /// When the sample cannot be read or decoded; the error names file and sample.
    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>>;
}
