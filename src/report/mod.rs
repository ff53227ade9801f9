//! What a run leaves behind for people and tools: its folder, its verdict, its memory.

mod advice;
mod bound;
pub mod folder;
pub mod histogram;
pub mod memory;
pub mod verdict;
