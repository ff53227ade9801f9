//! The training engine and what it tells.
pub mod event;
