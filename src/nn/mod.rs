//! Models as graphs: layers, the models by name, losses, optimizers and schedules.

pub mod beta;
mod build;
pub mod describe;
pub mod gpt;
pub mod init;
pub mod language;
pub mod layers;
pub mod llama;
pub mod losses;
pub mod mixing;
pub mod models;
pub mod optimizers;
pub mod resnet;
pub mod schedules;
pub mod sequential;
pub mod vit;

use std::sync::Arc;

use crate::error::Result;
use crate::graph::{Graph, TensorId};

/// Whether a graph is built for training or for evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout drops, batch norm takes the batch's statistics.
    Train,
    /// Dropout does nothing, batch norm takes the running statistics.
    Eval,
}

/// A model or a part of one: adds its operations to a graph.
pub trait Module: Send + Sync {
    /// Adds the operations that turn `x` into this module's output, which is returned. Called once for
    /// each [`Mode`]; both must make the same parameters, with the same names.
    ///
    /// # Errors
    /// When the shape of `x` does not fit.
    fn build(&self, graph: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId>;
}

impl<M: Module + ?Sized> Module for Arc<M> {
    fn build(&self, graph: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        (**self).build(graph, x, mode)
    }
}
