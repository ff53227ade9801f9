//! `--shuffle-block`: an order for media that are read best in sequence, computed without a table.

use crate::permutation::Permutation;

/// Blocks whose samples are mixed with each other. More mix better and keep more blocks open at a time; eight blocks
/// of a thousand samples are what shuffle buffers usually hold.
pub const WINDOW_BLOCKS: usize = 8;

/// Keep both permutations apart from all others of the same seed.
const BLOCKS: u64 = u64::from_le_bytes(*b"blocks..");
const WINDOW: u64 = u64::from_le_bytes(*b"window..");

/// The order of one epoch: the blocks are permuted, which leaves `len` places in a row; the places of each window, of
/// as many as [`WINDOW_BLOCKS`] blocks have, are permuted among themselves. Both are bijections, so this is one.
pub(super) struct BlockOrder {
    len: usize,
    block_len: usize,
    seed: u64,
    epoch: u64,
    blocks: Permutation,
    /// Where the last block has come to, which may be shorter than the others.
    short_at: usize,
    short_len: usize,
}

impl BlockOrder {
    pub fn new(len: usize, block_len: usize, seed: u64, epoch: u64) -> Self {
        let count = len.div_ceil(block_len);
        let blocks = Permutation::keyed(count, &[seed, epoch, BLOCKS]);
        let short_at = blocks.invert(count - 1);
        let short_len = len - (count - 1) * block_len;
        Self { len, block_len, seed, epoch, blocks, short_at, short_len }
    }

    /// The sample at a place of the epoch.
    pub fn sample(&self, place: usize) -> usize {
        let place = self.mixed(place);
        let short_start = self.short_at * self.block_len;
        // Behind the short block all lie where they would if it were as long as the others.
        let behind = place >= short_start + self.short_len;
        let place = if behind { place + self.block_len - self.short_len } else { place };
        let (slot, offset) = (place / self.block_len, place % self.block_len);
        self.blocks.apply(slot) * self.block_len + offset
    }

    /// The place that a place of a window takes among the blocks in their order.
    fn mixed(&self, place: usize) -> usize {
        let window_len = self.block_len.saturating_mul(WINDOW_BLOCKS);
        let window = place / window_len;
        let start = window * window_len;
        let len = window_len.min(self.len - start);
        let key = [self.seed, self.epoch, window as u64, WINDOW];
        start + Permutation::keyed(len, &key).apply(place - start)
    }
}
