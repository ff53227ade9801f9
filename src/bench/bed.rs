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

    /// Measures what the device can do at best.
    ///
    /// # Errors
    /// When the device is lost or does not hold the buffers.
    pub fn ceilings(&mut self, quick: bool) -> Result<Ceilings> {
        let passes = if quick { 3 } else { 9 };
        let effort = Effort { passes, seconds: 1.0 };
        match self {
            Bed::Gpu(stopwatch) => {
                let bytes_per_s = device::copy_bytes_per_s(stopwatch, effort)?;
                let f32 = device::multiply_add_flops_per_s(stopwatch, DType::F32, effort)?;
                let f16 = match stopwatch.context().has_f16() {
                    true => Some(device::multiply_add_flops_per_s(stopwatch, DType::F16, effort)?),
                    false => None,
                };
                Ok(Ceilings { bytes_per_s, f32_flops_per_s: f32, f16_flops_per_s: f16 })
            }
            Bed::Twins => ceilings::of_twins(effort),
        }
    }
}
