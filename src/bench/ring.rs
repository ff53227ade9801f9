//! An executor and its slots, which go round without a pipeline: what steps over batches in place are timed with.

use std::time::{Duration, Instant};

use super::train::StepTimes;
use crate::batch::{Slot, StepHeader};
use crate::error::{Error, Result};
use crate::executor::{Executor, Wants};
use crate::graph::plan::{Pass, Program};
use crate::train::load_initial;

/// How long a single step may take before the device is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// An executor whose slots come back to be submitted again.
pub(super) struct Ring {
    pub executor: Box<dyn Executor>,
    /// Slots that are not in flight.
    pub free: Vec<Slot>,
    header: StepHeader,
}

impl Ring {
    /// Loads initial values of `seed` for steps of rate `lr`, and takes the slots, which are empty.
    pub fn new(
        mut executor: Box<dyn Executor>,
        program: &Program,
        seed: u64,
        lr: f32,
    ) -> Result<Self> {
        load_initial(program, &mut *executor, seed)?;
        let free = executor.take_slots()?;
        let count = program.slot.batch_size as u32;
        let header = StepHeader { count, lr, weight: 1.0, ..Default::default() };
        Ok(Self { executor, free, header })
    }

    /// Submits a free slot as a step.
    pub fn submit(&mut self, wants: Wants) -> Result<()> {
        let missing = || Error::device("slots", "none is free, expected one a step in flight");
        let slot = self.free.pop().ok_or_else(missing)?;
        self.submit_slot(slot, wants)
    }

    /// Submits this slot as a step.
    pub fn submit_slot(&mut self, mut slot: Slot, wants: Wants) -> Result<()> {
        slot.write_header(&self.header);
        self.header.step += 1;
        self.executor.submit(Pass::Train, slot, wants)
    }

    /// Waits for the oldest step and takes its slot back. Its interval is for the caller to tell.
    pub fn collect(&mut self) -> Result<StepTimes> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(done) = self.executor.collect(Duration::from_millis(100))? {
                self.free.push(done.slot);
                return Ok(StepTimes {
                    interval_s: 0.0,
                    busy_s: done.device_busy.map(|busy| busy.as_secs_f64()),
                    record_s: done.recorded.as_secs_f64(),
                    submit_s: done.handed_over.as_secs_f64(),
                });
            }
        }
        let message = format!("a step did not end within {} s", PATIENCE.as_secs());
        Err(Error::device("step", message).hint("a smaller --batch-size"))
    }

    /// Waits for all steps in flight.
    pub fn drain(&mut self) -> Result<()> {
        while self.executor.in_flight() > 0 {
            self.collect()?;
        }
        Ok(())
    }
}
