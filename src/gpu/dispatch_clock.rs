//! Timestamps of every dispatch of a pass, on the host's clock: what a trace is made of.
//!
//! While a run is traced, each dispatch is a compute pass of its own, since portable timestamps stand at the beginning
//! and end of passes. The device's clock is put beside the host's once: empty passes are submitted and waited for, and
//! the end of the one that came back soonest lies between submission and return. Half of that time is the error, which
//! the trace tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::compute::Compiled;
use super::context::{Context, HANG_TIMEOUT};
use super::objects::Objects;
use super::readback::Arrivals;
use super::timestamps::Pairs;
use crate::error::Result;
use crate::graph::plan::Pass;
use crate::report::trace::{Dispatched, Tracer, Track};

/// Dispatches of a pass that are timed at most; those after them are one more. Twice as many timestamps are what WebGPU
/// allows in a set.
const TIMED_MAX: usize = 2048;
/// Passes that the clocks are compared by.
const TRIALS: usize = 12;

/// Times dispatches while a run is traced.
#[derive(Debug)]
pub(super) struct DispatchClock {
    tracer: Arc<Tracer>,
    /// Those of the pass over each slot.
    slots: Vec<Pairs>,
    names: BTreeMap<Pass, Vec<String>>,
    /// Nanoseconds of a tick.
    period_ns: f64,
    /// A moment on both clocks: microseconds of the trace, and ticks.
    moment: (f64, u64),
    /// Passes that came back.
    passes: u64,
}

impl DispatchClock {
    /// A clock for the passes of a program over a ring of `slots`; none where the device has no timestamps, which the
    /// trace then tells.
    pub(super) fn new(
        tracer: Arc<Tracer>,
        slots: usize,
        compiled: &Compiled,
        objects: &mut Objects,
    ) -> Result<Option<Self>> {
        if !objects.context.has_timestamps() {
            tracer.label("this device has no timestamps: only what the host sees is here");
            return Ok(None);
        }
        let names = compiled.names();
        let most = names.values().map(Vec::len).max().unwrap_or(0).clamp(1, TIMED_MAX);
        let slots = (0..slots).map(|_| Pairs::new(most, objects)).collect::<Result<Vec<_>>>()?;
        let period_ns = f64::from(objects.context.queue.get_timestamp_period());
        let moment = (0.0, 0);
        let mut clock = Self { tracer, slots, names, period_ns, moment, passes: 0 };
        clock.compare(&objects.context)?;
        Ok(Some(clock))
    }

    /// Whether there is anything left to trace.
    pub(super) fn is_on(&self) -> bool {
        !self.tracer.is_over()
    }

    /// Finds a moment on both clocks.
    fn compare(&mut self, context: &Arc<Context>) -> Result<()> {
        let mut best_us = f64::INFINITY;
        for _ in 0..TRIALS {
            let slot = &self.slots[0];
            let mut encoder = context.device.create_command_encoder(&Default::default());
            let timestamp_writes = Some(slot.writes(0));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            drop(encoder.begin_compute_pass(&descriptor));
            let arrivals = Arc::new(Arrivals::default());
            slot.resolve(1, &mut encoder, &arrivals);
            let commands = encoder.finish();
            let before = Instant::now();
            let submission = context.queue.submit([commands]);
            context.finish(submission, &arrivals, HANG_TIMEOUT)?;
            let after = Instant::now();
            let pairs = slot.read().map_err(|error| context.broken(error))?;
            let [before_us, after_us] = [before, after].map(|at| self.tracer.us(at));
            if after_us - before_us < best_us {
                best_us = after_us - before_us;
                self.moment = ((before_us + after_us) / 2.0, pairs[0][1]);
            }
        }
        let error_us = best_us / 2.0;
        self.tracer.label(&format!("on the host's clock to ± {error_us:.0} µs"));
        Ok(())
    }

    /// Records a pass over `slot`, each dispatch with its timestamps, and their way back.
    pub(super) fn encode(
        &self,
        compiled: &Compiled,
        pass: Pass,
        slot: usize,
        encoder: &mut wgpu::CommandEncoder,
        arrivals: &Arc<Arrivals>,
    ) -> Result<()> {
        let slot = &self.slots[slot];
        let timed = self.names.get(&pass).map_or(0, |names| names.len().min(TIMED_MAX));
        compiled.encode_apart(pass, encoder, timed, |at| slot.writes(at))?;
        slot.resolve(timed, encoder, arrivals);
        Ok(())
    }

    /// Writes a pass that came back into the trace; the seconds it took. The host submitted it at `submitted`.
    pub(super) fn finish(
        &mut self,
        context: &Context,
        pass: Pass,
        slot: usize,
        submitted: Instant,
    ) -> Result<Option<f64>> {
        let pairs = self.slots[slot].read().map_err(|error| context.broken(error))?;
        let names = self.names.get(&pass).map(Vec::as_slice).unwrap_or_default();
        // What the device does lies between submission and now; the error of the comparison must not tear it out.
        let [first_us, last_us] = [submitted, Instant::now()].map(|at| self.tracer.us(at));
        let pairs = &pairs[..pairs.len().min(names.len())];
        let begin = pairs.iter().map(|pair| self.us(pair[0])).fold(f64::INFINITY, f64::min);
        let end = pairs.iter().map(|pair| self.us(pair[1])).fold(f64::NEG_INFINITY, f64::max);
        let shift = (first_us - begin).max(0.0) + (last_us - end).min(0.0);
        let shift = if shift.is_finite() { shift } else { 0.0 };
        let dispatch = |(pair, name): (&[u64; 2], _)| Dispatched {
            name,
            from_us: self.us(pair[0]) + shift,
            to_us: self.us(pair[1].max(pair[0])) + shift,
        };
        let names = names.iter().map(String::as_str);
        let dispatches: Vec<_> = pairs.iter().zip(names).map(dispatch).collect();
        self.tracer.device_pass(&format!("{pass:?}"), self.passes, &dispatches);
        self.passes += 1;
        Ok(Some((end - begin) * 1e-6).filter(|s| s.is_finite() && *s >= 0.0))
    }

    /// Writes how the host spent a submission.
    pub(super) fn submitted(&self, [start, recorded, handed_over]: [Instant; 3]) {
        self.tracer.span(Track::Thread, "record", start, recorded, json!({}));
        self.tracer.span(Track::Thread, "hand over", recorded, handed_over, json!({}));
    }

    /// Ticks as microseconds of the trace.
    fn us(&self, ticks: u64) -> f64 {
        let (us, then) = self.moment;
        us + ticks.wrapping_sub(then) as i64 as f64 * self.period_ns * 1e-3
    }
}
