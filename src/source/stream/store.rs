//! The samples of a stream between the thread that receives them and the step that uses them: bounded, in order, and
//! kept until they were applied.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
#[cfg(feature = "queue")]
use std::time::Duration;

use crate::error::{Error, Result};

/// Samples that may wait beyond those asked for: eight batches of the usual size.
pub(super) const AHEAD_SAMPLES: usize = 1024;

/// Bytes that may wait beyond those asked for.
pub(super) const AHEAD_BYTES: usize = 256 << 20;

/// A sample as it came.
pub(super) struct Item {
    /// Its input and its class; what is wrong with it alone is told when it is read.
    pub content: Result<(Vec<u8>, u32)>,
    /// Where it is from, for errors: `message 1718-0`.
    pub origin: String,
}

impl Item {
    fn bytes(&self) -> usize {
        self.content.as_ref().map_or(0, |(input, _)| input.len())
    }
}

/// The samples, and the two sides that wait for each other.
#[derive(Default)]
pub(super) struct Store {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Samples from index `first` on; none where one was applied before an earlier one.
    items: VecDeque<Option<Arc<Item>>>,
    first: usize,
    /// The lowest index that will be asked for; known with the first question.
    begin: Option<usize>,
    /// Samples below this index were asked for.
    wanted: usize,
    /// Bytes of the samples from `wanted` on.
    ahead_bytes: usize,
    end: Option<Result<()>>,
    closed: bool,
}

impl State {
    fn next(&self) -> usize {
        self.first + self.items.len()
    }

    /// How many samples there is room for beside those that wait.
    fn room(&self) -> usize {
        if self.next() < self.wanted {
            return (self.wanted - self.next()).max(AHEAD_SAMPLES);
        }
        let full = self.ahead_bytes >= AHEAD_BYTES;
        if full { 0 } else { AHEAD_SAMPLES.saturating_sub(self.next() - self.wanted) }
    }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the next sample, when there is room for it; false once nobody wants more. A stream that replays gives what
    /// was used by an earlier run again: that is dropped here.
    pub fn push(&self, item: Item, replays: bool) -> bool {
        let mut state = self.lock();
        while state.room() == 0 && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return false;
        }
        if replays && state.begin.is_some_and(|begin| state.next() < begin) {
            debug_assert!(state.items.is_empty(), "what was used before is never kept");
            state.first += 1;
            return true;
        }
        if state.next() >= state.wanted {
            state.ahead_bytes += item.bytes();
        }
        state.items.push_back(Some(Arc::new(item)));
        self.changed.notify_all();
        true
    }

    /// Waits for room, for at most `patience`; how many samples there is room for then.
    #[cfg(feature = "queue")]
    pub fn wait_for_room(&self, patience: Duration) -> usize {
        let mut state = self.lock();
        if state.room() == 0 && !state.closed {
            let waited = self.changed.wait_timeout(state, patience);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.room()
    }

    /// The stream is over, well or with an error. The samples that came before are still delivered.
    pub fn end(&self, end: Result<()>) {
        self.lock().end.get_or_insert(end);
        self.changed.notify_all();
    }

    /// Nobody wants more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits for the samples `indices`; whether they all came. `replays`: whether index 0 is the first of the stream,
    /// rather than the first that this process sees.
    pub fn reach(&self, indices: &[usize], replays: bool) -> bool {
        let (Some(&low), Some(&high)) = (indices.iter().min(), indices.iter().max()) else {
            return true;
        };
        let mut state = self.lock();
        if state.begin.is_none() {
            state.begin = Some(low);
            if replays {
                let used = low.saturating_sub(state.first).min(state.items.len());
                state.items.drain(..used);
                state.first += used;
            } else {
                state.first = low;
            }
        }
        if high >= state.wanted {
            state.wanted = high + 1;
            let waiting = state.wanted.saturating_sub(state.first);
            let ahead = state.items.iter().skip(waiting).flatten();
            state.ahead_bytes = ahead.map(|item| item.bytes()).sum();
            self.changed.notify_all();
        }
        while state.next() <= high && state.end.is_none() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.next() > high
    }

    /// The error that ended the stream.
    pub fn failure(&self) -> Option<Error> {
        self.lock().end.as_ref().and_then(|end| end.as_ref().err().cloned())
    }

    /// A sample that was waited for and not applied.
    pub fn get(&self, index: usize) -> Option<Arc<Item>> {
        let state = self.lock();
        state.items.get(index.checked_sub(state.first)?)?.clone()
    }

    /// Drops samples that were applied, and gives them back to be told of.
    pub fn applied(&self, indices: &[usize]) -> Vec<Arc<Item>> {
        let mut state = self.lock();
        let first = state.first;
        let mut take = |index: &usize| {
            let place = index.checked_sub(first)?;
            state.items.get_mut(place)?.take()
        };
        let items = indices.iter().filter_map(&mut take).collect();
        while let Some(None) = state.items.front() {
            state.items.pop_front();
            state.first += 1;
        }
        self.changed.notify_all();
        items
    }

    /// Sleeps, unless nobody wants more.
    #[cfg(feature = "queue")]
    pub fn pause(&self, time: Duration) {
        let state = self.lock();
        if !state.closed {
            drop(self.changed.wait_timeout_while(state, time, |state| !state.closed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(byte: u8) -> Item {
        Item { content: Ok((vec![byte], 0)), origin: byte.to_string() }
    }

    fn bytes(store: &Store) -> Vec<u8> {
        let state = store.lock();
        state.items.iter().flatten().map(|item| item.content.as_ref().unwrap().0[0]).collect()
    }

    #[test]
    fn samples_stay_until_they_were_applied() {
        let store = Store::default();
        assert!((0..6).all(|i| store.push(item(i), true)));
        assert!(store.reach(&[0, 1, 2, 3], true));
        assert_eq!(store.applied(&[1]).len(), 1);
        assert_eq!(bytes(&store), [0, 2, 3, 4, 5]);
        assert!(store.get(1).is_none() && store.get(2).is_some());
        assert_eq!(store.applied(&[0, 2, 0]).len(), 2, "each is told of once");
        assert_eq!(store.lock().first, 3);
        store.end(Ok(()));
        assert!(store.reach(&[5], true) && !store.reach(&[6], true));
    }

    #[test]
    fn what_an_earlier_run_used_is_dropped_from_a_stream_that_replays() {
        let store = Store::default();
        assert!((0..3).all(|i| store.push(item(i), true)));
        std::thread::scope(|scope| {
            scope.spawn(|| assert!((3..8).all(|i| store.push(item(i), true))));
            assert!(store.reach(&[5, 6], true));
        });
        assert_eq!(bytes(&store), [5, 6, 7]);
        let queue = Store::default();
        assert!((0..3).all(|i| queue.push(item(i), false)));
        assert!(queue.reach(&[5, 6], false), "what a queue sends was not used before");
        assert_eq!(bytes(&queue), [0, 1, 2]);
    }

    #[test]
    fn large_samples_leave_room_for_few() {
        let store = Store::default();
        let large = || Item { content: Ok((vec![0; AHEAD_BYTES / 4], 0)), origin: String::new() };
        for count in 0..4 {
            assert!(store.lock().room() > 0, "{count} samples wait");
            assert!(store.push(large(), true));
        }
        assert_eq!(store.lock().room(), 0);
    }

    #[test]
    fn who_sends_waits_for_room_and_who_reads_for_samples() {
        let store = Store::default();
        let sent = std::sync::atomic::AtomicUsize::new(0);
        let most = std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..5 * AHEAD_SAMPLES {
                    sent.store(i, std::sync::atomic::Ordering::SeqCst);
                    if !store.push(item(0), true) {
                        return;
                    }
                }
            });
            let mut most = 0;
            for batch in 0..20 {
                let indices: Vec<usize> = (batch * 100..batch * 100 + 100).collect();
                assert!(store.reach(&indices, true));
                most = most.max(store.lock().items.len());
                store.applied(&indices);
            }
            store.close();
            most
        });
        assert!(most <= AHEAD_SAMPLES + 100, "{most} samples waited");
        let sent = sent.into_inner();
        assert!(sent <= 2000 + AHEAD_SAMPLES, "{sent} samples were sent, 2000 asked for");
        assert!(!store.reach(&[5000], true), "closing ends every wait");
    }

    #[test]
    fn a_batch_larger_than_what_may_wait_still_comes() {
        let store = Store::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..3 * AHEAD_SAMPLES).all(|_| store.push(item(0), true)));
            let indices: Vec<usize> = (0..3 * AHEAD_SAMPLES).collect();
            assert!(store.reach(&indices, true));
        });
    }
}
