//! What a program would be on a device, found by lowering it: nothing is compiled or allocated for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::Context;
use super::executor::{REPORT_BYTES, REPORTS};
use super::lowering::{LoweredPass, Lowering};
use super::objects::allocated;
use super::timestamps::TIMESTAMP_BYTES;
use super::tune::Choices;
use crate::error::{Error, Result};
use crate::graph::plan::{Pass, Program};

/// What a program asks of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// What each pass is.
    pub passes: BTreeMap<Pass, Counts>,
    /// The memory it takes.
    pub memory: DeviceMemory,
}

/// How much a pass asks of the device's front end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dispatches.
    pub dispatches: usize,
    /// Points between them at which everything before must have ended.
    pub barriers: usize,
}

impl Survey {
    /// Finds out what `program` with a ring of `slots` slots would be on a device.
    pub fn new(program: &Arc<Program>, context: &Context, slots: usize) -> Self {
        let lowering = Lowering::new(program, &Choices::default(), context, slots);
        let count = |(&pass, lowered): (&Pass, &LoweredPass)| {
            let order = &lowered.order;
            let barriers = order.iter().filter(|(_, _, scheduled)| scheduled.waits).count();
            (pass, Counts { dispatches: order.len(), barriers })
        };
        let passes = lowering.passes.iter().map(count).collect();
        Self { passes, memory: DeviceMemory::new(&lowering, slots, context) }
    }

    /// Checks that the device has the memory.
    ///
    /// # Errors
    /// With what is needed, what there is, and what would fit.
    pub fn check_memory(&self, program: &Program, context: &Context) -> Result<()> {
        self.memory.check_on(context, program)
    }
}

/// Bytes of all buffers that a program takes on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Parameters, gradients, moments, states, constants and metrics.
    pub arenas: u64,
    /// Activations and their gradients.
    pub activations: u64,
    /// What operations hold between their dispatches.
    pub scratch: u64,
    /// The ring of slots, and the batch that the device works on.
    pub batches: u64,
    /// Results on their way to the host.
    pub readback: u64,
    /// What a checkpoint copies.
    pub snapshot: u64,
}

impl DeviceMemory {
    pub(super) fn new(lowering: &Lowering, slots: usize, context: &Context) -> Self {
        let program = &lowering.program;
        let arena = |len: usize| allocated(4 * len);
        let timestamps = if context.has_timestamps() { allocated(TIMESTAMP_BYTES) } else { 0 };
        let trains = program.plans.contains_key(&Pass::Train);
        let kept = program.persistent_arenas().filter(|_| trains);
        Self {
            arenas: program.arenas.values().map(|&len| arena(len)).sum(),
            activations: program.activations.iter().map(|a| allocated(a.bytes())).sum(),
            scratch: lowering.scratch_bytes.iter().map(|&bytes| allocated(bytes)).sum(),
            batches: (slots as u64 + 1) * allocated(program.slot.slot_bytes),
            readback: (REPORTS * slots) as u64 * allocated(REPORT_BYTES) + timestamps,
            snapshot: kept.map(|name| arena(program.arenas[&name])).sum(),
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.arenas + self.activations + self.scratch + self.batches + self.readback + self.snapshot
    }

    /// Checks that it fits, where the device tells how much it has.
    pub(super) fn check_on(&self, context: &Context, program: &Program) -> Result<()> {
        let has = context.memory_bytes();
        has.map_or(Ok(()), |has| self.check(has, program.slot.batch_size, context.name()))
    }

    /// Checks that it fits into `has` bytes, where a batch has `batch_size` samples.
    fn check(&self, has: u64, batch_size: usize, device: &str) -> Result<()> {
        let needs = self.total();
        if needs <= has {
            return Ok(());
        }
        let message = format!(
            "the run needs {needs} bytes (parameters and moments {}, activations {}, scratch {}, batches {}, \
             readback {}), the device has {has}",
            self.arenas,
            self.activations,
            self.scratch,
            self.batches,
            self.readback + self.snapshot,
        );
        // What a smaller batch lowers; scratch may fall too, which is not counted on.
        let by_batch = self.activations + self.batches;
        let left = has.saturating_sub(needs - by_batch);
        let fits = (u128::from(left) * batch_size as u128 / u128::from(by_batch.max(1))) as usize;
        Err(Error::device(device, message).hint(match fits {
            0 => "--recompute, or a smaller model".into(),
            fits => format!("--batch-size {fits}, or --recompute"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers_and_a_batch_that_fits() {
        let memory = DeviceMemory {
            arenas: 1000,
            activations: 6000,
            scratch: 500,
            batches: 2000,
            readback: 100,
            snapshot: 400,
        };
        assert_eq!(memory.total(), 10_000);
        memory.check(10_000, 80, "a device").expect("just fits");
        let refusal = |has| memory.check(has, 80, "a device").expect_err("too large").to_string();
        assert_eq!(
            refusal(9_999),
            "device: a device: the run needs 10000 bytes (parameters and moments 1000, activations 6000, \
             scratch 500, batches 2000, readback 500), the device has 9999; try --batch-size 79, or --recompute"
        );
        assert!(refusal(6_000).contains("try --batch-size 40, or"));
        assert!(refusal(2_050).contains("try --recompute, or a smaller model"));
        assert!(refusal(10).contains("try --recompute, or a smaller model"));
    }
}
