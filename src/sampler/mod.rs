//! Which samples make which batch: a pure function of (seed, epoch, batch) and the rank, with no state.
//!
//! An epoch is an order of places `0..len`, each of which has a sample: that of the source, a permutation, blocks in
//! turn, or draws from balanced classes. Its places are dealt to the ranks, and cut into batches.

mod balance;
mod blocks;
mod config;
mod deal;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use blocks::WINDOW_BLOCKS;
pub use config::SamplingConfig;

use crate::error::{Error, Result};
use crate::permutation::Permutation;
use crate::source::Source;
use balance::{Balance, BalancedOrder};
use blocks::BlockOrder;
use deal::Deal;

/// Keeps the sampler's stream apart from all others of the same seed.
const SHUFFLE: u64 = u64::from_le_bytes(*b"shuffle.");

/// The order of the samples of every epoch.
///
/// Unless classes are balanced, each epoch visits every sample once. The order is a keyed bijection of `0..len`
/// computed on the spot, so a run can resume at any batch, and no thread can change it.
#[derive(Clone, Debug)]
pub struct Sampler {
    deal: Deal,
    seed: u64,
    /// Whether the order changes from epoch to epoch; if not, it is that of the source.
    shuffle: bool,
    kind: Kind,
}

/// What an epoch consists of.
#[derive(Clone, Debug)]
enum Kind {
    /// Every sample, in any order.
    Plain,
    /// Every sample, in blocks of so many.
    Blocks(usize),
    /// Draws from classes.
    Balanced(Arc<Balance>),
}

impl Sampler {
    /// A sampler of all samples that yields at least one batch an epoch.
    ///
    /// # Errors
    /// When there is no sample, the batch size is 0, or `drop_last` leaves nothing.
    pub fn new(
        len: usize,
        batch_size: usize,
        seed: u64,
        shuffle: bool,
        drop_last: bool,
    ) -> Result<Self> {
        if len == 0 {
            return Err(Error::config("data set", "found 0 samples, expected at least 1"));
        }
        if batch_size == 0 {
            return Err(Error::config("batch size", "found 0, expected at least 1"));
        }
        let deal = Deal::alone(len, batch_size, drop_last)?;
        Ok(Self { deal, seed, shuffle, kind: Kind::Plain })
    }

    /// Shuffles for media that are read best in sequence: blocks of `block_len` samples that follow each other, in
    /// random order, and the samples of [`WINDOW_BLOCKS`] blocks mixed. Without shuffling it changes nothing.
    ///
    /// # Errors
    /// When the length is 0, or classes are balanced, which draws from everywhere.
    pub fn in_blocks(mut self, block_len: usize) -> Result<Self> {
        if block_len == 0 {
            return Err(Error::config("--shuffle-block", "found 0, expected at least 1"));
        }
        if let Kind::Balanced(_) = self.kind {
            let message = "found it with balanced classes, which are drawn from everywhere";
            return Err(Error::config("--shuffle-block", message).hint("leaving one of both out"));
        }
        self.kind = Kind::Blocks(block_len);
        // A rank that reads every other sample would read every block.
        self.deal.in_runs = self.shuffle;
        Ok(self)
    }

    /// Draws from the classes of `source`, of which the samples are, instead of visiting every sample once an epoch:
    /// each class by its weight, which is 1 unless `weights` has another one under its name (or its number, where
    /// classes have no names). With a weight of 0 a class is left out.
    ///
    /// An epoch still has as many draws as there are samples. Each class has its share of them, by largest remainder, so
    /// classes of the same weight differ by one at most. Within a class the draws walk through a permutation of its
    /// samples and go on with the next permutation at its end, across epochs: a class with more samples than draws is
    /// seen whole after some epochs, and of a class with fewer no sample comes twice before all came once. Without
    /// shuffling, classes are spread evenly and walked through in the order of the source.
    ///
    /// # Errors
    /// When the samples have no classes or do not tell them without being read, a weight is not a finite number from 0
    /// or is of a class that does not exist or has no samples, or a class would never be drawn; and when samples are
    /// shuffled in blocks.
    pub fn balanced(
        mut self,
        source: &dyn Source,
        weights: &BTreeMap<String, f64>,
    ) -> Result<Self> {
        if source.len() != self.deal.len {
            let (found, expected) = (source.len(), self.deal.len);
            let message = format!("found classes of {found} samples, expected {expected}");
            return Err(Error::config("--balance", message));
        }
        if let Kind::Blocks(_) = self.kind {
            let message = "found it with blocks, but it draws from everywhere";
            return Err(Error::config("--balance", message).hint("leaving one of both out"));
        }
        self.kind = Kind::Balanced(Arc::new(Balance::new(source, weights, self.shuffle)?));
        Ok(self)
    }

    /// Takes the part of rank `rank` of `world`: the parts of all ranks are disjoint and together the whole epoch,
    /// and all have the same number of batches. Batch *b* of all ranks together is batch *b* of a sampler alone with
    /// `world` times the batch size, unless samples are shuffled in blocks: then each rank has a run of the order, so
    /// that it reads blocks of its own.
    ///
    /// # Errors
    /// When there is no such rank, or a rank would have a batch without a sample.
    pub fn sharded(mut self, rank: usize, world: usize) -> Result<Self> {
        self.deal = self.deal.shared(rank, world)?;
        Ok(self)
    }

    /// Batches an epoch has, on each rank.
    pub fn steps_per_epoch(&self) -> usize {
        self.deal.steps()
    }

    /// Samples of one batch, in order; fewer than the batch size only for the last, none past the end.
    pub fn indices(
        &self,
        epoch: u64,
        batch: usize,
    ) -> impl ExactSizeIterator<Item = usize> + use<> {
        let (deal, order) = (self.deal, self.order(epoch));
        deal.batch(batch).map(move |i| order.sample(deal.place(i)))
    }

    fn order(&self, epoch: u64) -> Order {
        let (len, seed) = (self.deal.len, self.seed);
        match &self.kind {
            Kind::Balanced(balance) => {
                Order::Balanced(BalancedOrder::new(balance.clone(), seed, epoch, self.shuffle))
            }
            _ if !self.shuffle => Order::OfSource,
            Kind::Plain => Order::Shuffled(Permutation::keyed(len, &[seed, epoch, SHUFFLE])),
            Kind::Blocks(block_len) => Order::Blocks(BlockOrder::new(len, *block_len, seed, epoch)),
        }
    }
}

/// The order of one epoch.
enum Order {
    OfSource,
    Shuffled(Permutation),
    Blocks(BlockOrder),
    Balanced(BalancedOrder),
}

impl Order {
    /// The sample at a place of the epoch.
    fn sample(&self, place: usize) -> usize {
        match self {
            Order::OfSource => place,
            Order::Shuffled(permutation) => permutation.apply(place),
            Order::Blocks(blocks) => blocks.sample(place),
            Order::Balanced(balanced) => balanced.sample(place),
        }
    }
}

#[cfg(test)]
mod tests;
