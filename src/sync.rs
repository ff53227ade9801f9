//! What synchronisation by hand is made of. `loom/` puts in its own here, which tries every order that threads can run in.

pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The value, for the one who lets go of it as the last.
pub(crate) fn last<T>(shared: Arc<T>) -> Option<T> {
    Arc::into_inner(shared)
}
