//! A table by sample in which an entry is made once and never changes: it is read without a lock.

use std::sync::OnceLock;

/// Entries of a page: pages are made when one of their samples is first kept.
const PAGE: usize = 1024;

type Page<T> = OnceLock<Box<[OnceLock<T>]>>;

/// For each of a number of samples an entry, or nothing yet.
pub(super) struct Table<T>(Box<[Page<T>]>);

impl<T> Table<T> {
    pub fn new(len: usize) -> Self {
        Self((0..len.div_ceil(PAGE)).map(|_| OnceLock::new()).collect())
    }

    pub fn get(&self, index: usize) -> Option<&T> {
        self.0.get(index / PAGE)?.get()?[index % PAGE].get()
    }

    /// Enters what `entry` makes, unless there is an entry or no such sample; whether it was entered.
    pub fn set(&self, index: usize, entry: T) -> bool {
        let Some(page) = self.0.get(index / PAGE) else { return false };
        let page = page.get_or_init(|| (0..PAGE).map(|_| OnceLock::new()).collect());
        page[index % PAGE].set(entry).is_ok()
    }
}
