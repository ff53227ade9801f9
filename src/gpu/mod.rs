//! The GPU half: context, kernels, upload, compute, readback.
pub mod kernel;
