//! inflight

pub mod batch;
pub mod cpu;
pub mod error;
pub mod executor;
pub mod gpu;
pub mod graph;
pub mod nn;
pub mod report;
pub mod rng;
pub mod source;
#[doc(hidden)]
pub mod testing;
pub mod train;

pub use error::{Error, ErrorKind, Result, Stage};
