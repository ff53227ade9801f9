//! The little that the files under test ask of the rest of the project.

/// What synchronisation is made of: loom's.
pub mod sync {
    pub use loom::sync::atomic::Ordering;
    pub use loom::sync::{Arc, Mutex, MutexGuard};
    pub use std::sync::PoisonError;

    /// loom tries the two orders of a read and a change only if the read is the last access before the change: a thread
    /// that reads again hides that another one has read before. So whoever reads is first seen to touch something that
    /// every access changes; the value itself may still be an old one, as the ordering allows.
    macro_rules! atomic {
        ($name:ident, $integer:ty) => {
            #[derive(Debug)]
            pub struct $name {
                value: loom::sync::atomic::$name,
                touched: loom::sync::atomic::AtomicUsize,
            }

            impl $name {
                pub fn new(value: $integer) -> Self {
                    let touched = loom::sync::atomic::AtomicUsize::new(0);
                    Self { value: loom::sync::atomic::$name::new(value), touched }
                }

                pub fn load(&self, order: Ordering) -> $integer {
                    self.touched.fetch_add(1, Ordering::Relaxed);
                    self.value.load(order)
                }

                pub fn store(&self, value: $integer, order: Ordering) {
                    self.touched.fetch_add(1, Ordering::Relaxed);
                    self.value.store(value, order);
                }

                pub fn fetch_add(&self, value: $integer, order: Ordering) -> $integer {
                    self.touched.fetch_add(1, Ordering::Relaxed);
                    self.value.fetch_add(value, order)
                }

                pub fn fetch_min(&self, value: $integer, order: Ordering) -> $integer {
                    self.touched.fetch_add(1, Ordering::Relaxed);
                    self.value.fetch_min(value, order)
                }
            }
        };
    }

    atomic!(AtomicU64, u64);
    atomic!(AtomicUsize, usize);

    /// The value, for the one who lets go of it as the last. Only done under a lock, so that no two do at once.
    pub fn last<T>(shared: Arc<T>) -> Option<T> {
        Arc::try_unwrap(shared).ok()
    }
}

pub mod error {
    #[derive(Clone, Debug)]
    pub struct Error(pub String);
    pub type Result<T, E = Error> = std::result::Result<T, E>;
}

/// Time stands still.
pub mod clock {
    use std::time::Duration;

    #[derive(Clone, Copy, Debug)]
    pub struct Stamp;

    impl Stamp {
        pub fn now() -> Self {
            Self
        }

        pub fn until(self, _later: Self) -> Duration {
            Duration::ZERO
        }
    }
}

pub mod gauges {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    pub struct Sum;

    impl Sum {
        pub fn add(&self, _time: Duration) {}
    }

    pub struct AtWork {
        pub workers: AtomicUsize,
    }

    pub struct Tracer;

    impl Tracer {
        pub fn slot(&self, _index: usize, _state: &str, _args: serde_json::Value) {}
    }

    pub struct Gauges {
        pub busy: Sum,
        pub idle: Sum,
        pub stages: (),
        pub at_work: AtWork,
    }

    impl Gauges {
        pub fn of(workers: usize) -> Self {
            let at_work = AtWork { workers: AtomicUsize::new(workers) };
            Self { busy: Sum, idle: Sum, stages: (), at_work }
        }

        pub fn tracing(&self) -> Option<&Tracer> {
            None
        }
    }
}

pub mod pipeline {
    use crate::batch::Slot;

    #[derive(Debug)]
    pub struct Work {
        pub step: u64,
        pub indices: Vec<usize>,
        pub bad: usize,
    }

    #[derive(Debug)]
    pub struct Filled {
        pub work: Work,
        pub slot: Slot,
    }
}

pub mod prepare {
    use super::error::{Error, Result};
    use super::gauges::Tracer;
    use super::quarantine::Faults;
    use crate::batch::{Slot, SlotLayout, Window};

    /// Samples are taken one by one, so that workers meet.
    pub fn chunk_len(_samples: usize, _workers: usize) -> usize {
        1
    }

    /// No panic is caught here: in a model all of them are mistakes.
    pub fn guarded<T>(_what: impl std::fmt::Display, run: impl FnOnce() -> Result<T>) -> Result<T> {
        run()
    }

    /// Writes numbers, or fails where it is told to.
    pub struct Filler<'a> {
        pub number: u64,
        pub layout: SlotLayout,
        pub fails: fn(u64, usize) -> bool,
        pub lifetime: std::marker::PhantomData<&'a ()>,
    }

    impl Filler<'_> {
        pub fn layout(&self) -> &SlotLayout {
            &self.layout
        }

        pub fn fill_chunk(
            &self,
            windows: &mut [Window<'_>],
            indices: &[usize],
            _times: &(),
            _traced: Option<(&Tracer, u64)>,
        ) -> Result<(), (usize, Error)> {
            for (at, (window, &index)) in windows.iter_mut().zip(indices).enumerate() {
                if (self.fails)(self.number, index) {
                    return Err((at, Error(format!("{}/{index}", self.number))));
                }
                window.input.fill(self.number as u8 * 2 + index as u8 + 1);
            }
            Ok(())
        }

        pub fn finish(self, _slot: &mut Slot, _indices: &mut Vec<usize>) -> Result<Faults> {
            Ok(Faults)
        }
    }
}

pub mod quarantine {
    use super::error::Result;
    use super::pipeline::Work;

    #[derive(Debug)]
    pub struct Faults;

    impl Faults {
        pub fn missing(&self) -> usize {
            0
        }
    }

    pub struct Quarantine;

    impl Quarantine {
        pub fn settle(&self, _work: &Work, _faults: Faults) -> Result<()> {
            Ok(())
        }
    }
}
