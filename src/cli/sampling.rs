//! The flags that say which samples a training uses, and in which order.

use std::collections::BTreeMap;

use inflight::quarantine::{Budget, OnBadSample};
use inflight::sampler::SamplingConfig;
use inflight::{Error, Result};

use super::flags::{ON, set};

/// Each overrides the key of the same name under `[sampling]`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SamplingFlags {
    /// Hold a share of the training samples out, as many of each class, and validate with them instead of the test
    /// split, as 0.1
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    val_split: Option<f64>,
    /// Shuffle blocks of N samples that follow each other, and mix within a few: for media best read in sequence
    #[arg(long, value_name = "N")]
    shuffle_block: Option<usize>,
    /// Draw every class equally often; an epoch still has as many draws as there are samples
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = ON)]
    balance: Option<bool>,
    /// Draw classes by these weights, as cat=2,dog=1; the others have 1
    #[arg(long, value_name = "LIST")]
    class_weights: Option<String>,
    /// Which of --world processes this is, from 0: each takes its own part of every epoch [default: 0]
    #[arg(long, value_name = "K")]
    rank: Option<usize>,
    /// Processes that share the training samples [default: 1]
    #[arg(long, value_name = "N")]
    world: Option<usize>,
    /// What to do about a sample that cannot be read or decoded: error, skip (another one takes its place), or
    /// quarantine (as well, and listed in RUN/quarantine.jsonl) [default: error]
    #[arg(long, value_name = "WHAT")]
    on_bad_sample: Option<OnBadSample>,
    /// Bad samples of a split after which the run ends: a number, or a share, as 1% [default: 100]
    #[arg(long, value_name = "N")]
    bad_sample_budget: Option<Budget>,
}

impl SamplingFlags {
    /// Overrides the keys of `config` that a flag was given for.
    ///
    /// # Errors
    /// When the list of weights is none.
    pub fn apply(&self, config: &mut SamplingConfig) -> Result<()> {
        config.val_split = self.val_split.or(config.val_split);
        config.shuffle_block = self.shuffle_block.or(config.shuffle_block);
        set(&mut config.balance, self.balance);
        // Weights balance by themselves.
        if self.balance == Some(false) {
            config.class_weights.clear();
        }
        set(&mut config.class_weights, self.class_weights.as_deref().map(weights).transpose()?);
        set(&mut config.rank, self.rank);
        set(&mut config.world, self.world);
        set(&mut config.on_bad_sample, self.on_bad_sample);
        set(&mut config.bad_sample_budget, self.bad_sample_budget);
        Ok(())
    }
}

/// `cat=2,dog=1`. A name may hold an equals sign; one with a comma needs a configuration file.
fn weights(list: &str) -> Result<BTreeMap<String, f64>> {
    let weight = |part: &str| {
        let (name, weight) = part.rsplit_once('=')?;
        Some((name.trim().to_string(), weight.trim().parse().ok()?))
    };
    list.split(',')
        .map(|part| {
            weight(part).ok_or_else(|| {
                let message = format!("found {part:?}, expected a class and its weight");
                Error::config("--class-weights", message).hint("cat=2,dog=1")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_a_file_go_with_the_balance() {
        let of_file = || SamplingConfig {
            class_weights: [("cat".to_string(), 2.0)].into(),
            ..Default::default()
        };
        for (balance, balances) in [(None, true), (Some(true), true), (Some(false), false)] {
            let mut config = of_file();
            let flags = SamplingFlags { balance, ..Default::default() };
            flags.apply(&mut config).expect("fits");
            assert_eq!(config.balances(), balances, "{balance:?}");
        }
    }

    #[test]
    fn weights_are_a_list_of_names_and_numbers() {
        let found = weights("cat=2, a=b=0.5,3=0").expect("a list");
        let expected = [("3", 0.0), ("a=b", 0.5), ("cat", 2.0)];
        assert_eq!(found, expected.map(|(name, weight)| (name.to_string(), weight)).into());
        for list in ["", "cat", "cat=", "cat=two", "cat=1,"] {
            let error = weights(list).expect_err("no list").to_string();
            assert!(error.contains("expected a class and its weight; try cat=2,dog=1"), "{error}");
        }
    }
}
