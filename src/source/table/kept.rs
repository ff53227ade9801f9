//! Parts of a file that are read when they are needed, of which a few stay in memory.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;

type Load<T> = dyn Fn(usize) -> Result<T> + Send + Sync;

/// Parts of a file, by number.
pub(super) struct Kept<T> {
    load: Box<Load<T>>,
    /// What is in memory, the last used one last.
    parts: Mutex<Vec<(usize, Arc<T>)>>,
    most: usize,
}

impl<T> Kept<T> {
    /// Parts that `load` reads; the `most` used last stay.
    pub fn new(most: usize, load: impl Fn(usize) -> Result<T> + Send + Sync + 'static) -> Self {
        Self { load: Box::new(load), parts: Mutex::default(), most: most.max(1) }
    }

    /// A part.
    ///
    /// # Errors
    /// When it must be read and cannot be.
    pub fn get(&self, number: usize) -> Result<Arc<T>> {
        if let Some(found) = self.find(number) {
            return Ok(found);
        }
        // Read outside of the lock: others go on with the parts that are there. Two that miss the same part at the same
        // time both read it, and find the same.
        let found = Arc::new((self.load)(number)?);
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|(other, _)| *other != number);
        parts.push((number, found.clone()));
        if parts.len() > self.most {
            parts.remove(0);
        }
        Ok(found)
    }

    fn find(&self, number: usize) -> Option<Arc<T>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let at = parts.iter().position(|(other, _)| *other == number)?;
        let found = parts.remove(at);
        let part = found.1.clone();
        parts.push(found);
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_parts_used_last_stay() {
        let loads = Arc::new(AtomicUsize::new(0));
        let counted = loads.clone();
        let kept = Kept::new(2, move |number| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(10 * number)
        });
        let after = |number| {
            assert_eq!(*kept.get(number).expect("loads"), 10 * number);
            loads.load(Ordering::Relaxed)
        };
        assert_eq!(
            [after(1), after(2), after(1), after(3), after(1), after(2)],
            [1, 2, 2, 3, 3, 4]
        );
    }
}
