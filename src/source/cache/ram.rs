//! Samples kept in memory: lent from where they lie, without a lock and without a copy.

use std::sync::Arc;

use super::Budget;
use super::table::Table;
use crate::source::Sample;
use crate::source::owned::OwnedSample;

pub(super) struct Ram {
    kept: Table<OwnedSample>,
    budget: Arc<Budget>,
}

impl Ram {
    pub fn new(len: usize, budget: Arc<Budget>) -> Self {
        Self { kept: Table::new(len), budget }
    }

    pub fn get(&self, index: usize) -> Option<&OwnedSample> {
        self.kept.get(index)
    }

    /// Keeps a sample if there is room for it.
    pub fn keep(&self, index: usize, sample: &Sample<'_>) {
        let bytes = OwnedSample::bytes_of(sample);
        if !self.budget.take(bytes) {
            return;
        }
        // Another worker may have been faster, where a batch holds a sample twice.
        if !self.kept.set(index, OwnedSample::of(sample)) {
            self.budget.give_back(bytes);
        }
    }
}
