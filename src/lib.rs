//! inflight

pub mod batch;
pub mod cpu;
pub mod error;
pub mod executor;
pub mod gpu;
pub mod graph;
pub mod nn;
pub mod rng;
pub mod source;

pub use error::{Error, ErrorKind, Result, Stage};
