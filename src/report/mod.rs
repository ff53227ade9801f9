//! What a run leaves behind for people and tools: its folder, its verdict, its memory, and pictures of them.

mod advice;
pub mod answers;
mod bound;
pub mod curve;
pub mod folder;
pub mod gallery;
pub mod histogram;
pub mod memory;
pub mod page;
pub mod plot;
#[cfg(feature = "prometheus")]
pub mod prometheus;
pub mod pulse;
pub mod tensorboard;
pub mod trace;
pub mod verdict;
pub mod words;
