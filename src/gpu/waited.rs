//! How long a pass has been waited for: what tells a device that hangs from a process that was stopped.

use std::time::{Duration, Instant};

/// Most that counts of the time between two looks beyond what was waited on purpose. Whoever waits looks far more often; a
/// process that was stopped meanwhile, by a signal or with its container, did not wait, and neither did a software
/// adapter's threads, which stood still with it, compute.
pub(super) const LOOK_MAX: Duration = Duration::from_secs(1);

/// Adds up what was waited between looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited {
    so_far: Duration,
    last: Instant,
}

impl Waited {
    /// Nothing yet, from this moment on.
    pub(super) fn from(now: Instant) -> Self {
        Self { so_far: Duration::ZERO, last: now }
    }

    /// A look after at most `patience` of waiting; all that was waited so far.
    pub(super) fn until(&mut self, now: Instant, patience: Duration) -> Duration {
        let since = now.saturating_duration_since(self.last);
        self.so_far += since.min(patience.saturating_add(LOOK_MAX));
        self.last = now;
        self.so_far
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_waited_adds_up_however_often_one_looks() {
        let start = Instant::now();
        let mut waited = Waited::from(start);
        assert_eq!(waited.until(start + 60 * SECOND, 60 * SECOND), 60 * SECOND);
        // Looks that wait for nothing, in a run that has other things to do.
        for look in 1..=100 {
            let so_far = waited.until(start + 60 * SECOND + look * SECOND / 2, Duration::ZERO);
            assert_eq!(so_far, 60 * SECOND + look * SECOND / 2);
        }
    }

    #[test]
    fn a_process_that_was_stopped_has_not_waited() {
        let start = Instant::now();
        let mut waited = Waited::from(start);
        let hour = 3600 * SECOND;
        let tick = SECOND / 2000;
        assert_eq!(waited.until(start + hour, tick), tick + LOOK_MAX);
        assert_eq!(waited.until(start + hour + tick, tick), 2 * tick + LOOK_MAX);
        assert_eq!(Waited::from(start + hour).until(start, tick), Duration::ZERO);
    }
}
