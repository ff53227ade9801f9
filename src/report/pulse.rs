//! The pulse of a run: a few times a second, what its stages did meanwhile and how full its queues were. The same
//! for the timeline in the run folder, for streams of events, and for everything that shows a run while it goes on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time between two pulses at least: a person sees no more, and a pulse costs some microseconds.
pub const PULSE_EVERY: Duration = Duration::from_millis(200);

/// What happened since the pulse before. Times are in seconds; workers' times are summed over threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pulse {
    /// Steps applied so far.
    pub step: u64,
    /// The epoch under way, from 0.
    pub epoch: u64,
    /// Seconds since the run began.
    pub elapsed_s: f64,
    /// Seconds since the pulse before.
    pub over_s: f64,
    /// Passes submitted, of training and validation.
    pub passes: u64,
    /// Samples trained on.
    pub samples: u64,
    /// Workers reading.
    pub read_s: f64,
    /// Workers decoding.
    pub decode_s: f64,
    /// Workers transforming.
    pub augment_s: f64,
    /// Workers writing into slots.
    pub upload_s: f64,
    /// At least one batch being filled (wall).
    pub filling_s: f64,
    /// The device thread recording and submitting; the twins compute in it.
    pub launch_s: f64,
    /// The device busy with passes, where it tells.
    pub device_s: f64,
    /// The device with nothing to do, for want of a batch.
    pub starved_s: f64,
    /// Full slots that waited for the device, on average over passes.
    pub full: f64,
    /// Passes on the device, on average over passes.
    pub in_flight: f64,
    /// Bytes of samples read ahead.
    pub ahead_bytes: u64,
    /// Slots in play.
    pub slots: u64,
    /// Workers at work.
    pub workers: u64,
}

impl Pulse {
    /// This pulse and the `next` one as one.
    pub fn and(self, next: Self) -> Self {
        let passes = self.passes + next.passes;
        let mean = |a: f64, b: f64| match passes {
            0 => b,
            _ => (a * self.passes as f64 + b * next.passes as f64) / passes as f64,
        };
        Self {
            over_s: self.over_s + next.over_s,
            passes,
            samples: self.samples + next.samples,
            read_s: self.read_s + next.read_s,
            decode_s: self.decode_s + next.decode_s,
            augment_s: self.augment_s + next.augment_s,
            upload_s: self.upload_s + next.upload_s,
            filling_s: self.filling_s + next.filling_s,
            launch_s: self.launch_s + next.launch_s,
            device_s: self.device_s + next.device_s,
            starved_s: self.starved_s + next.starved_s,
            full: mean(self.full, next.full),
            in_flight: mean(self.in_flight, next.in_flight),
            ..next
        }
    }

    /// Training samples a second.
    pub fn samples_per_s(&self) -> f64 {
        if self.over_s > 0.0 { self.samples as f64 / self.over_s } else { 0.0 }
    }

    /// Shares of the time in which each stage was busy, from 0 to 1, in the order of [`Pulse::STAGES`]. Workers' times
    /// are divided by the workers at work.
    pub fn shares(&self) -> [f64; 6] {
        let over_s = self.over_s.max(1e-9);
        let workers = self.workers.max(1) as f64;
        let worker = |s: f64| s / workers / over_s;
        let shares = [
            worker(self.read_s),
            worker(self.decode_s),
            worker(self.augment_s),
            worker(self.upload_s),
            self.launch_s / over_s,
            self.device_s / over_s,
        ];
        shares.map(|share| share.clamp(0.0, 1.0))
    }

    /// The stages that [`shares`](Self::shares) tells of.
    pub const STAGES: [&'static str; 6] =
        ["read", "decode", "augment", "upload", "launch", "device"];
}

/// A timeline whose pulses grow longer as the run does, so that its file stays small: it holds about
/// `LINES_AT_ONE_LENGTH` of each length, and the length doubles from one to the next.
#[derive(Debug)]
pub struct Thinning {
    pending: Option<Pulse>,
    length_s: f64,
    lines: u32,
}

/// Lines of one length. A day of training comes to some 5,000 lines.
const LINES_AT_ONE_LENGTH: u32 = 400;

impl Default for Thinning {
    fn default() -> Self {
        Self { pending: None, length_s: PULSE_EVERY.as_secs_f64(), lines: 0 }
    }
}

impl Thinning {
    /// Takes a pulse; gives one for the file as soon as enough of them have come together.
    pub fn take(&mut self, pulse: Pulse) -> Option<Pulse> {
        let pulse = match self.pending.take() {
            Some(before) => before.and(pulse),
            None => pulse,
        };
        if pulse.over_s < self.length_s {
            self.pending = Some(pulse);
            return None;
        }
        self.lines += 1;
        if self.lines == LINES_AT_ONE_LENGTH {
            (self.lines, self.length_s) = (0, 2.0 * self.length_s);
        }
        Some(pulse)
    }

    /// What is left at the end.
    pub fn rest(&mut self) -> Option<Pulse> {
        self.pending.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(passes: u64, full: f64) -> Pulse {
        Pulse { passes, full, over_s: 0.2, samples: 10 * passes, workers: 2, ..Default::default() }
    }

    #[test]
    fn two_pulses_are_one_longer_one() {
        let both = pulse(1, 3.0).and(Pulse { step: 9, ..pulse(3, 1.0) });
        assert_eq!((both.passes, both.samples, both.step), (4, 40, 9));
        assert!((both.over_s - 0.4).abs() < 1e-12 && (both.full - 1.5).abs() < 1e-12, "{both:?}");
        assert!((both.samples_per_s() - 100.0).abs() < 1e-9);
        let idle = pulse(0, 0.0).and(pulse(0, 2.0));
        assert!((idle.full - 2.0).abs() < 1e-12, "{idle:?}");
    }

    #[test]
    fn shares_are_of_the_workers_time() {
        let busy = Pulse { decode_s: 0.2, device_s: 0.1, launch_s: 9.0, ..pulse(1, 0.0) };
        assert_eq!(busy.shares(), [0.0, 0.5, 0.0, 0.0, 1.0, 0.5]);
        assert_eq!(Pulse::default().shares(), [0.0; 6]);
    }

    #[test]
    fn a_long_timeline_stays_short_and_keeps_all_samples() {
        let mut thinning = Thinning::default();
        // Two days.
        let count = 5 * 2 * 86_400;
        let mut kept: Vec<Pulse> =
            (0..count).filter_map(|_| thinning.take(pulse(1, 0.0))).collect();
        kept.extend(thinning.rest());
        assert!(kept.len() < 6_000, "{}", kept.len());
        assert_eq!(kept.iter().map(|pulse| pulse.samples).sum::<u64>(), 10 * count);
        assert!(kept.iter().take(400).all(|pulse| pulse.passes == 1));
    }
}
