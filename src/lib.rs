//! inflight

pub mod batch;
pub mod config;
pub mod cpu;
pub mod error;
pub mod executor;
pub mod gpu;
pub mod graph;
pub mod nn;
pub mod prepare;
pub mod report;
pub mod rng;
pub mod sampler;
pub mod source;
pub mod train;
pub mod transform;

pub use error::{Error, ErrorKind, Result, Stage};
