//! The choice of a device: the one place that knows both executors.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::executor::{Executor, Tune};
use crate::faults::{self, At};
use crate::graph::plan::Program;
use crate::{cpu, gpu};

/// Opens the device that `selector` names and makes an executor for `program` on it, with a ring of `slots`.
///
/// `auto` takes a discrete GPU, else an integrated one, else the CPU twins; `cpu` the twins; `gpu` a hardware
/// GPU or nothing; `gpu:K` the adapter of that index; anything else the first adapter whose name contains it.
///
/// # Errors
/// When there is no such adapter, it cannot be opened, or it is too small for the program.
pub fn open(selector: &str, program: Arc<Program>, slots: usize) -> Result<Box<dyn Executor>> {
    open_tuned(selector, program, slots, Tune::Off)
}

/// As [`open`], after tuning for `program`, if it is an adapter.
///
/// # Errors
/// As [`open`].
pub fn open_tuned(
    selector: &str,
    program: Arc<Program>,
    slots: usize,
    tune: Tune,
) -> Result<Box<dyn Executor>> {
    if faults::due(At::Open) {
        return Err(Error::device(selector, "cannot be opened, as planned by a test"));
    }
    if faults::due(At::Other) || selector == "cpu" {
        return Ok(Box::new(cpu::Executor::new(program, slots)?));
    }
    match gpu::Context::open(selector)? {
        Some(context) => {
            let tuner = gpu::tune::Tuner::new(tune);
            Ok(Box::new(gpu::Executor::tuned(context, program, slots, &tuner)?))
        }
        None => Ok(Box::new(cpu::Executor::new(program, slots)?)),
    }
}
