//! Takes the pulse of a run on its device thread: reads the counters a few times a second.

use std::time::Instant;

use super::book::Book;
use super::engine::DeviceTimes;
use crate::gauges::Gauges;
use crate::report::pulse::{PULSE_EVERY, Pulse};

/// What was read for the pulse before, and what was seen since.
pub(super) struct Meter {
    since: Instant,
    before: Reading,
    epoch: u64,
    /// Whether the device computes on the thread that launches, as twins do and software adapters nearly: that time is
    /// then not launching.
    shares_thread: bool,
    /// Looks at the queues, and the sums of what was seen.
    looks: u64,
    full: u64,
    in_flight: u64,
}

/// Counters that only grow.
#[derive(Clone, Copy, Default)]
struct Reading {
    passes: u64,
    samples: u64,
    /// Read, decode, augment, upload, filling, launch, device, starved.
    times_s: [f64; 8],
}

impl Reading {
    fn new(book: &Book, device: &DeviceTimes, gauges: &Gauges) -> Self {
        let stages = &gauges.stages;
        Self {
            passes: device.passes,
            samples: book.samples,
            times_s: [
                stages.read_s(),
                stages.decode_s(),
                stages.augment_s(),
                stages.write_s(),
                gauges.busy.seconds(),
                device.launch_s,
                device.busy_s,
                gauges.starved.seconds(),
            ],
        }
    }
}

impl Meter {
    pub fn new(shares_thread: bool) -> Self {
        let before = Reading::default();
        Self {
            since: Instant::now(),
            before,
            epoch: 0,
            shares_thread,
            looks: 0,
            full: 0,
            in_flight: 0,
        }
    }

    /// Looks at how full the queues are, once a pass of `epoch`.
    pub fn look(&mut self, epoch: u64, full: usize, in_flight: usize) {
        self.epoch = epoch;
        self.looks += 1;
        self.full += full as u64;
        self.in_flight += in_flight as u64;
    }

    /// The pulse, if it is time for one; or whatever there is since the one before, if it is the `last`.
    pub fn pulse(
        &mut self,
        book: &Book,
        device: &DeviceTimes,
        gauges: &Gauges,
        last: bool,
    ) -> Option<Pulse> {
        let over = self.since.elapsed();
        if over < PULSE_EVERY && !last {
            return None;
        }
        self.since += over;
        let now = Reading::new(book, device, gauges);
        let before = std::mem::replace(&mut self.before, now);
        let looks = std::mem::take(&mut self.looks).max(1) as f64;
        let mut spent = now.times_s;
        spent.iter_mut().zip(before.times_s).for_each(|(now, before)| *now -= before);
        let [read_s, decode_s, augment_s, upload_s, filling_s, launch_s, device_s, starved_s] =
            spent;
        let launch_s = if self.shares_thread { (launch_s - device_s).max(0.0) } else { launch_s };
        let sizes = gauges.at_work.sizes();
        Some(Pulse {
            step: book.steps,
            epoch: self.epoch,
            elapsed_s: book.terms.began.elapsed().as_secs_f64(),
            over_s: over.as_secs_f64(),
            passes: now.passes - before.passes,
            samples: now.samples - before.samples,
            read_s,
            decode_s,
            augment_s,
            upload_s,
            filling_s,
            launch_s,
            device_s,
            starved_s,
            full: std::mem::take(&mut self.full) as f64 / looks,
            in_flight: std::mem::take(&mut self.in_flight) as f64 / looks,
            ahead_bytes: gauges.stores.ahead.iter().map(|ahead| ahead.held() as u64).sum(),
            slots: sizes.slots as u64,
            workers: sizes.workers as u64,
        })
    }
}
