//! The places of an epoch, dealt to the ranks and cut into batches.

use std::ops::Range;

use crate::error::{Error, Result};

/// What one rank gets of an epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deal {
    /// Places of an epoch.
    pub len: usize,
    batch_size: usize,
    drop_last: bool,
    rank: usize,
    world: usize,
    /// Whether a rank's places follow each other, rather than being every `world`-th.
    pub in_runs: bool,
}

impl Deal {
    /// Everything for one rank.
    ///
    /// # Errors
    /// When `drop_last` leaves nothing.
    pub fn alone(len: usize, batch_size: usize, drop_last: bool) -> Result<Self> {
        let deal = Self { len, batch_size, drop_last, rank: 0, world: 1, in_runs: false };
        deal.check()?;
        Ok(deal)
    }

    /// The same epoch, shared by `world` ranks.
    ///
    /// # Errors
    /// When there is no such rank, or a rank would have a batch without a sample, or none at all.
    pub fn shared(self, rank: usize, world: usize) -> Result<Self> {
        if rank >= world {
            let message = format!("found rank {rank} of {world}, expected a rank below {world}");
            return Err(Error::config("--rank", message).hint("--rank 0 --world 1"));
        }
        let deal = Self { rank, world, ..self };
        deal.check()?;
        Ok(deal)
    }

    fn check(&self) -> Result<()> {
        let (len, batch_size, least) = (self.len, self.batch_size, self.len / self.world);
        let of_a_rank = if self.world > 1 { " of a rank" } else { "" };
        if self.drop_last && least < batch_size {
            let message = format!(
                "found {batch_size}, expected at most the {least} samples{of_a_rank} there are: no batch is full"
            );
            return Err(
                Error::config("batch size", message).hint(format!("--batch-size {}", least.max(1)))
            );
        }
        if least < self.steps() {
            let message = format!(
                "found {len} samples for {} ranks in batches of {batch_size}: some rank would have a batch without one",
                self.world
            );
            return Err(
                Error::config("--world", message).hint("--drop-last, or another --batch-size")
            );
        }
        Ok(())
    }

    /// Batches of an epoch, the same on every rank: as many as the largest share needs.
    pub fn steps(&self) -> usize {
        if self.drop_last {
            self.len / self.world / self.batch_size
        } else {
            self.len.div_ceil(self.world).div_ceil(self.batch_size)
        }
    }

    /// Places of this rank: shares differ by one at most.
    fn share(&self) -> usize {
        self.len.saturating_sub(self.rank).div_ceil(self.world)
    }

    /// A batch as a range of this rank's share; empty past the end of the epoch.
    pub fn batch(&self, batch: usize) -> Range<usize> {
        let steps = self.steps();
        let batch = batch.min(steps);
        self.start(batch)..self.start((batch + 1).min(steps))
    }

    /// Where a batch begins. A rank whose share ends early leaves one sample for each batch to come, so that all
    /// ranks do the same number of steps.
    fn start(&self, batch: usize) -> usize {
        (batch * self.batch_size).min(self.share() - (self.steps() - batch))
    }

    /// The place in the epoch of one in this rank's share.
    pub fn place(&self, i: usize) -> usize {
        if !self.in_runs {
            return self.rank + i * self.world;
        }
        // The first ranks have the larger shares, as when places are dealt one by one.
        self.rank * (self.len / self.world) + self.rank.min(self.len % self.world) + i
    }
}
