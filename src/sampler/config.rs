//! Which samples a run trains on and validates with, and in which order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Sampler;
use crate::error::{Error, Result};
use crate::quarantine::{Budget, OnBadSample};
use crate::source::{Dataset, ENDLESS, Source, check_share, no_stream};

/// Ranks at most: far above what trains one model.
const WORLD_MAX: usize = 1 << 20;

/// The `[sampling]` table of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingConfig {
    /// Share of the training part that is held out to validate with; see [`Dataset::split`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_split: Option<f64>,
    /// Samples of a block, for media that are read best in sequence; see [`Sampler::in_blocks`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shuffle_block: Option<usize>,
    /// Whether every class is drawn equally often, or by its weight; see [`Sampler::balanced`].
    pub balance: bool,
    /// Which of `world` processes this is, from 0; see [`Sampler::sharded`].
    pub rank: usize,
    /// Processes that share the training samples.
    pub world: usize,
    /// What is done about samples that cannot be read or decoded, or whose target is out of range.
    pub on_bad_sample: OnBadSample,
    /// How many samples of each part may be bad before the run ends.
    pub bad_sample_budget: Budget,
    /// Weights of classes by name, where they are not 1; with any, classes are balanced.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub class_weights: BTreeMap<String, f64>,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            val_split: None,
            shuffle_block: None,
            balance: false,
            rank: 0,
            world: 1,
            on_bad_sample: OnBadSample::default(),
            bad_sample_budget: Budget::default(),
            class_weights: BTreeMap::new(),
        }
    }
}

impl SamplingConfig {
    /// Checks what can be checked without the data.
    ///
    /// # Errors
    /// Naming the first flag that is out of range, what was found and what is expected.
    pub fn validate(&self) -> Result<()> {
        let wrong = |flag: &str, message: String| Err(Error::config(flag, message));
        self.val_split.map_or(Ok(()), check_share)?;
        if self.shuffle_block == Some(0) {
            return wrong("--shuffle-block", "found 0, expected at least 1".into());
        }
        if self.shuffle_block.is_some() && self.balances() {
            let message = "found it with --balance, which draws from everywhere";
            return Err(Error::config("--shuffle-block", message).hint("leaving one of both out"));
        }
        if !(1..=WORLD_MAX).contains(&self.world) {
            return wrong("--world", format!("found {}, expected 1 to {WORLD_MAX}", self.world));
        }
        if self.rank >= self.world {
            let (rank, world) = (self.rank, self.world);
            let message = format!("found rank {rank} of {world}, expected a rank below {world}");
            return wrong("--rank", message);
        }
        Ok(())
    }

    /// Whether classes are balanced.
    pub fn balances(&self) -> bool {
        self.balance || !self.class_weights.is_empty()
    }

    /// Holds out what is asked for.
    ///
    /// # Errors
    /// As [`Dataset::split`].
    pub fn split(&self, dataset: Dataset, seed: u64) -> Result<Dataset> {
        match self.val_split {
            Some(share) => dataset.split(share, seed),
            None => Ok(dataset),
        }
    }

    /// The sampler of a training part, from the one that would only shuffle it.
    ///
    /// # Errors
    /// When the samples cannot be drawn or shared so.
    pub fn sampler(&self, source: &dyn Source, plain: Sampler) -> Result<Sampler> {
        let chosen = self.balances() || self.shuffle_block.is_some() || self.world > 1;
        if source.len() == ENDLESS && chosen {
            return Err(no_stream(source, "to draw from, or to share"));
        }
        let mut sampler = plain;
        if self.balances() {
            sampler = sampler.balanced(source, &self.class_weights)?;
        }
        if let Some(block_len) = self.shuffle_block {
            sampler = sampler.in_blocks(block_len)?;
        }
        sampler.sharded(self.rank, self.world)
    }
}
