//! What is measured while batches are prepared, and how many are at work on them; read at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::prepare::{StageCounters, TimeSum};
use crate::report::trace::Tracer;
use crate::source::supply::Stores;
use crate::tuner::Sizes;

/// How many there are of what prepares batches, now.
#[derive(Debug, Default)]
pub struct AtWork {
    /// Threads that read ahead.
    pub readers: AtomicUsize,
    /// Slots in play.
    pub slots: AtomicUsize,
    /// Threads that decode, transform and write into slots.
    pub workers: AtomicUsize,
}

impl AtWork {
    pub(crate) fn sizes(&self) -> Sizes {
        let [readers, slots, workers] =
            [&self.readers, &self.slots, &self.workers].map(|n| n.load(Relaxed));
        Sizes { readers, slots, workers }
    }

    fn set(&self, Sizes { readers, slots, workers }: Sizes) {
        self.readers.store(readers, Relaxed);
        self.slots.store(slots, Relaxed);
        self.workers.store(workers, Relaxed);
    }
}

/// What a pipeline tells of itself: wall times, and what is at work.
#[derive(Debug, Default)]
pub struct Gauges {
    /// With batches being filled, one or several.
    pub busy: TimeSum,
    /// With none, for want of an empty slot.
    pub idle: TimeSum,
    /// The device with nothing to do, for want of a full slot.
    pub starved: TimeSum,
    /// What the workers did, summed over threads.
    pub stages: StageCounters,
    /// What is at work.
    pub at_work: AtWork,
    /// What stands between the sources and the workers.
    pub stores: Stores,
    /// Where it is written what happens when, for as long as the run is traced.
    pub tracer: Option<Arc<Tracer>>,
}

impl Gauges {
    /// The tracer of a run that is being traced.
    pub(crate) fn tracing(&self) -> Option<&Tracer> {
        self.tracer.as_deref().filter(|tracer| !tracer.is_over())
    }

    /// Has so many be at work from now on.
    pub(crate) fn set_at_work(&self, sizes: Sizes) {
        self.at_work.set(sizes);
        self.stores.ahead.iter().for_each(|ahead| ahead.set_readers(sizes.readers));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::batch::{DType, SampleSpec, TargetSpec};
    use crate::source::{ReadAhead, Room, Source, Synthetic};

    #[test]
    fn readers_that_are_wanted_read() {
        let spec = SampleSpec {
            input_shape: vec![1, 2, 2],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 2 },
        };
        let source = Arc::new(Synthetic::new(16, spec, 0).expect("a source"));
        let ahead = Arc::new(ReadAhead::start(source, 4, Room::new(1 << 20)).expect("starts"));
        ahead.set_readers(0);
        let stores = Stores { ahead: vec![ahead.clone()], caches: Vec::new() };
        let gauges = Gauges { stores, ..Default::default() };
        ahead.announce(&[3]);
        let sizes = Sizes { readers: 2, slots: 5, workers: 3 };
        gauges.set_at_work(sizes);
        assert_eq!(gauges.at_work.sizes(), sizes);
        // What was announced while nobody read stays with the workers; from now on it is read.
        ahead.announce(&[4]);
        let began = Instant::now();
        while ahead.held() == 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "nothing is read");
            std::thread::yield_now();
        }
        let mut scratch = Vec::new();
        for index in [3, 4] {
            ahead.read(index, &mut scratch).expect("made");
        }
        assert_eq!(ahead.hits(), 1);
    }
}
