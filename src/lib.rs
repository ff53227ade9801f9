//! inflight

pub mod batch;
pub mod config;
pub mod cpu;
pub mod device;
pub mod error;
pub mod executor;
pub mod gpu;
pub mod graph;
pub mod nn;
pub mod pipeline;
pub mod prepare;
pub mod report;
pub mod rng;
pub mod sampler;
pub mod source;
#[doc(hidden)]
pub mod testing;
pub mod train;
pub mod transform;

pub use config::RunConfig;
pub use error::{Error, ErrorKind, Result, Stage};
pub use train::Trainer;
