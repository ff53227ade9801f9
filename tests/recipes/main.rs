//! What recipes of training add to a run: augmented images, averaged weights, mixed batches, parameters that do not decay.

mod augment;
#[path = "../common/mod.rs"]
mod common;
mod decay;
mod ema;
mod mix;
