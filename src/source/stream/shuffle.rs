//! A buffer that shuffles a stream a little: each sample leaves it at random, once the buffer is full.

use super::store::Item;
use crate::rng::Rng;

/// Keeps this randomness apart from all other of the same seed.
const STREAM: u64 = u64::from_le_bytes(*b"stream..");

/// Up to `size` samples. What leaves is a function of the seed and of what came: the same stream, sent again, leaves
/// in the same order.
pub(super) struct Shuffle {
    waiting: Vec<Item>,
    size: usize,
    rng: Rng,
}

impl Shuffle {
    /// A buffer for so many samples; without, everything passes as it comes.
    pub fn new(size: Option<usize>, seed: u64) -> Self {
        let rng = Rng::keyed(&[seed, STREAM]);
        Self { waiting: Vec::new(), size: size.unwrap_or(0), rng }
    }

    /// Takes a sample, and gives another one, or itself, once the buffer is full.
    pub fn pass(&mut self, item: Item) -> Option<Item> {
        if self.waiting.len() < self.size {
            self.waiting.push(item);
            return None;
        }
        // One of those that wait or the new one, each as likely.
        let chosen = self.rng.below(self.size as u64 + 1) as usize;
        Some(match self.waiting.get_mut(chosen) {
            Some(waiting) => std::mem::replace(waiting, item),
            None => item,
        })
    }

    /// One of those that still wait, after the last came.
    pub fn rest(&mut self) -> Option<Item> {
        if self.waiting.is_empty() {
            return None;
        }
        let chosen = self.rng.below(self.waiting.len() as u64) as usize;
        Some(self.waiting.swap_remove(chosen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(size: Option<usize>, seed: u64, len: u8) -> Vec<u8> {
        let mut shuffle = Shuffle::new(size, seed);
        let item = |byte| Item { content: Ok((vec![byte], 0)), origin: String::new() };
        let mut left: Vec<Item> = (0..len).filter_map(|byte| shuffle.pass(item(byte))).collect();
        left.extend(std::iter::from_fn(|| shuffle.rest()));
        left.iter().map(|item| item.content.as_ref().unwrap().0[0]).collect()
    }

    #[test]
    fn every_sample_leaves_once_in_an_order_of_the_seed() {
        assert_eq!(order(None, 1, 50), (0..50).collect::<Vec<u8>>());
        let found = order(Some(10), 1, 50);
        assert_ne!(found, (0..50).collect::<Vec<u8>>());
        assert_eq!(found, order(Some(10), 1, 50));
        assert_ne!(found, order(Some(10), 2, 50));
        let mut sorted = found.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<u8>>());
        // Nothing leaves more than a buffer earlier than it came.
        assert!(found.iter().enumerate().all(|(place, &byte)| place + 11 > usize::from(byte)));
    }
}
