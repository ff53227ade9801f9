//! The bench bed: a device to measure on, be it a GPU or the twins.

use std::sync::Arc;

use super::ceilings::{self, Ceilings};
use crate::batch::DType;
use crate::error::Result;
use crate::executor::DeviceInfo;
use crate::gpu::stopwatch::{Effort, Stopwatch};
use crate::gpu::{Context, ceilings as device};
use crate::{cpu, gpu};

/// A device to measure on.
#[derive(Debug)]
pub enum Bed {
    /// An adapter.
    Gpu(Box<Stopwatch>),
    /// The CPU twins.
    Twins,
}

impl Bed {
    /// Opens the device that `selector` names, as [`device::open`](crate::device::open) does.
    ///
    /// # Errors
    /// When there is no such adapter, or it cannot be opened.
    pub fn open(selector: &str) -> Result<Self> {
        if selector == "cpu" {
            return Ok(Bed::Twins);
        }
        match Context::open(selector)? {
            Some(context) => Self::of(context),
            None => Ok(Bed::Twins),
        }
    }

    /// A bed on a device that is open.
    ///
    /// # Errors
    /// When it has no memory left for a few bytes.
    pub fn of(context: Arc<gpu::Context>) -> Result<Self> {
        Ok(Bed::Gpu(Box::new(Stopwatch::new(context)?)))
    }

    /// What it is.
    pub fn device(&self) -> DeviceInfo {
        match self {
            Bed::Gpu(stopwatch) => stopwatch.context().device_info(),
            Bed::Twins => cpu::device_info(),
        }
    }

    /// Finds out whether the device still works.
    ///
    /// # Errors
    /// When it was lost.
    pub fn check(&self) -> Result<()> {
        match self {
            Bed::Gpu(stopwatch) => stopwatch.context().check(),
            Bed::Twins => Ok(()),
        }
    }

    /// Measures what the device can do at best.
    ///
    /// # Errors
    /// When the device is lost or does not hold the buffers.
    pub fn ceilings(&mut self, quick: bool) -> Result<Ceilings> {
        // The shortest of many counts: other work on the machine only ever makes a pass longer.
        let (passes, seconds) = if quick { (7, 0.5) } else { (25, 2.0) };
        let effort = Effort { passes, seconds };
        match self {
            Bed::Gpu(stopwatch) => {
                let context = stopwatch.context();
                let (has_half, has_units) = (context.has_half(), context.caps().cooperative);
                let bytes_per_s = device::copy_bytes_per_s(stopwatch, effort)?;
                let mut flops = |dtype| device::multiply_add_flops_per_s(stopwatch, dtype, effort);
                let f32_flops_per_s = flops(DType::F32)?;
                let half = has_half.then(|| flops(DType::F16)).transpose()?;
                let units = has_units.then(|| device::matrix_flops_per_s(stopwatch, effort));
                Ok(Ceilings {
                    bytes_per_s,
                    f32_flops_per_s,
                    f16_flops_per_s: half,
                    matrix_flops_per_s: units.transpose()?,
                })
            }
            Bed::Twins => ceilings::of_twins(effort),
        }
    }
}
