//! Data from elsewhere: streams, queues and servers, and what a source is told of its samples.

mod applied;
#[path = "../common/mod.rs"]
mod common;
