//! The GPU half: context, kernels, upload, compute, readback.

pub mod adapters;
pub mod ceilings;
pub mod context;
pub mod dense;
pub mod kernel;
pub mod lower;
pub mod stopwatch;
pub mod survey;
pub mod tune;

mod compute;
mod dispatch_clock;
mod executor;
mod lowering;
mod memory_size;
mod objects;
mod pipeline_cache;
mod pipelines;
mod readback;
mod schedule;
mod timestamps;
mod upload;
mod waited;

pub use adapters::{AdapterSummary, adapters};
pub use context::Context;
pub use executor::Executor;
