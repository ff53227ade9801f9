//! What recipes of training add to a run: averaged weights, mixed batches, parameters that do not decay.

#[path = "../common/mod.rs"]
mod common;
mod decay;
mod ema;
mod mix;
