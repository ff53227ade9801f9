//! What a run leaves behind for people and tools.

pub mod verdict;
