//! The clock that a run is measured by. It is always on, and its cost is kept small enough for that. To find out what it
//! costs, a program built with the environment variable `INFLIGHT_UNMEASURED` set has none of it: no times of stages and
//! queues, so no verdict, and no numbers of workers, slots and readers that are found while the run goes on.

use std::time::{Duration, Instant};

/// Whether this build measures.
pub(crate) const MEASURES: bool = option_env!("INFLIGHT_UNMEASURED").is_none();

/// A moment; in a build that does not measure, none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp(Option<Instant>);

impl Stamp {
    /// Now.
    #[inline]
    pub fn now() -> Self {
        Self(MEASURES.then(Instant::now))
    }

    /// The moment itself.
    #[inline]
    pub fn instant(self) -> Option<Instant> {
        self.0
    }

    /// From this moment to a later one.
    #[inline]
    pub fn until(self, later: Self) -> Duration {
        self.0.zip(later.0).map_or(Duration::ZERO, |(from, to)| to.saturating_duration_since(from))
    }

    /// From this moment to now.
    #[inline]
    pub fn elapsed(self) -> Duration {
        self.until(Self::now())
    }
}

/// Time that the processor has spent on this thread, where the system tells it. A system call: not for every sample.
#[cfg(unix)]
pub(crate) fn thread_time() -> Option<Duration> {
    if !MEASURES {
        return None;
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the one `timespec` that is written into it.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    (status == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Time that the processor has spent on this thread, where the system tells it.
#[cfg(not(unix))]
pub(crate) fn thread_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_thread_that_sleeps_takes_no_processor_time() {
        let (wall, began) = (Stamp::now(), thread_time().expect("Unix tells it"));
        std::thread::sleep(Duration::from_millis(30));
        let spent = thread_time().expect("Unix tells it") - began;
        assert!(spent < wall.elapsed() / 2, "{spent:?}");
        let began = thread_time().expect("Unix tells it");
        let mut x = 1u64;
        while thread_time().expect("Unix tells it") == began {
            (0..10_000).for_each(|i| x = std::hint::black_box(x.wrapping_mul(31) ^ i));
        }
    }
}
