//! The ring of slots as the thread that prepares sees it: those that come back empty, and those that are not in play.

use crossbeam_channel::Receiver;

use crate::batch::Slot;
use crate::sync::{AtomicUsize, Ordering};

/// Slots to be filled, of which as many are in play as are wanted at the moment.
pub(crate) struct Ring<'a> {
    empty: &'a Receiver<Slot>,
    kept: Vec<Slot>,
    in_play: usize,
    /// How many are to be in play.
    wanted: &'a AtomicUsize,
}

impl<'a> Ring<'a> {
    /// All `slots` start out empty and not in play; those that were filled come back through `empty`.
    pub fn new(mut slots: Vec<Slot>, empty: &'a Receiver<Slot>, wanted: &'a AtomicUsize) -> Self {
        slots.reverse();
        Self { empty, kept: slots, in_play: 0, wanted }
    }

    /// Waits for an empty slot; none when the device is gone.
    pub fn next(&mut self) -> Option<Slot> {
        if self.in_play < self.wanted.load(Ordering::Relaxed)
            && let Some(slot) = self.kept.pop()
        {
            self.in_play += 1;
            return Some(slot);
        }
        loop {
            let slot = self.empty.recv().ok()?;
            // Never the last one, whatever is wanted: it would not come back.
            if self.in_play <= self.wanted.load(Ordering::Relaxed).max(1) {
                return Some(slot);
            }
            self.in_play -= 1;
            self.kept.push(slot);
        }
    }
}
