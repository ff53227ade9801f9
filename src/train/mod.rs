//! Training: the program of a model, the agenda of a run, the engine that runs it, and what it tells.

mod durable;

pub mod agenda;
pub mod book;
pub mod checkpoint;
pub mod compile;
pub mod event;
pub mod weights;
