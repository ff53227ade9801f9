//! What a run leaves behind for people and tools: its folder, its verdict, its memory.

pub mod folder;
pub mod memory;
pub mod verdict;
