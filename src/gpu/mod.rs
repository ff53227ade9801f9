//! The GPU half: context, kernels, upload, compute, readback.
pub mod dense;
pub mod kernel;
