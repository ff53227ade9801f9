//! Data from elsewhere: streams, queues and servers, and what a source is told of its samples.

mod applied;
mod cloud;
#[path = "../common/mod.rs"]
mod common;
mod queue;
mod stream;
