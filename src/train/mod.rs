//! Training: the program of a model, the agenda of a run, the engine that runs it, and what it tells.

mod builder;
mod engine;
mod keeper;
mod language_weights;
mod meter;
mod muon;
mod run;
mod trainer;
pub mod units;
mod witness;

pub mod agenda;
pub mod book;
pub mod checkpoint;
pub mod compile;
pub mod evaluate;
pub mod event;
pub mod rate;
pub mod recovery;
pub mod weights;

pub use builder::TrainerBuilder;
pub(crate) use builder::load_initial;
pub use trainer::{Commands, Events, Fit, Parameter, StepPromise, Trainer};
