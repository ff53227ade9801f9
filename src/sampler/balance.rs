//! `--balance`: an epoch that draws every class equally often, or by weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SHUFFLE;
use crate::error::{Error, Result};
use crate::permutation::Permutation;
use crate::source::Source;

/// Keeps the walks through classes apart from all other randomness of the same seed.
const WALK: u64 = u64::from_le_bytes(*b"classes.");

/// The samples of each class, and how often each class is drawn; see [`Sampler::balanced`](super::Sampler::balanced).
#[derive(Debug)]
pub(super) struct Balance {
    /// Draws of an epoch: as many as there are samples.
    len: usize,
    /// The samples of the drawn classes, class after class, each in ascending order; 4 bytes a sample.
    members: Vec<u32>,
    shares: Vec<Share>,
    /// Without shuffling: the draws of an epoch in an order in which every class is spread evenly.
    spread: Vec<u32>,
}

/// A class that is drawn.
#[derive(Debug)]
struct Share {
    class: u64,
    /// Where its samples begin among the members, and how many there are.
    first_member: usize,
    members: usize,
    /// Where its draws begin among those of an epoch, and how many there are.
    first_draw: usize,
    draws: usize,
}

impl Balance {
    pub fn new(
        source: &dyn Source,
        weights: &BTreeMap<String, f64>,
        shuffle: bool,
    ) -> Result<Self> {
        let groups = by_class(source)?;
        let weights = weights_of(source, &groups, weights)?;
        let draws = apportion(&weights, source.len());
        let mut balance =
            Self { len: source.len(), members: Vec::new(), shares: Vec::new(), spread: Vec::new() };
        let mut first_draw = 0;
        for (class, (group, draws)) in groups.iter().zip(draws).enumerate() {
            if weights[class] == 0.0 {
                continue;
            }
            if draws == 0 {
                let (name, len) = (class_name(source, class), source.len());
                let message =
                    format!("class {name} would have none of the {len} draws of an epoch");
                return Err(Error::config("--class-weights", message).hint("a larger weight"));
            }
            let (first_member, members) = (balance.members.len(), group.len());
            let class = class as u64;
            balance.shares.push(Share { class, first_member, members, first_draw, draws });
            balance.members.extend(group);
            first_draw += draws;
        }
        if !shuffle {
            balance.spread = spread(&balance.shares);
        }
        Ok(balance)
    }
}

/// The order of one epoch.
pub(super) struct BalancedOrder {
    balance: Arc<Balance>,
    seed: u64,
    epoch: u64,
    /// None: classes are spread evenly, and each is walked through in the order of the source.
    shuffled: Option<Permutation>,
}

impl BalancedOrder {
    pub fn new(balance: Arc<Balance>, seed: u64, epoch: u64, shuffle: bool) -> Self {
        let permutation = || Permutation::keyed(balance.len, &[seed, epoch, SHUFFLE]);
        let shuffled = shuffle.then(permutation);
        Self { balance, seed, epoch, shuffled }
    }

    /// The sample at a place of the epoch.
    pub fn sample(&self, place: usize) -> usize {
        let Balance { shares, members, spread, .. } = &*self.balance;
        let draw = match &self.shuffled {
            Some(permutation) => permutation.apply(place),
            None => spread[place] as usize,
        };
        let share = &shares[shares.partition_point(|share| share.first_draw <= draw) - 1];
        // Draws of this class before this one, in all epochs.
        let before = self.epoch as usize * share.draws + draw - share.first_draw;
        let (round, step) = (before / share.members, before % share.members);
        let member = match &self.shuffled {
            Some(_) => {
                let key = [self.seed, share.class, round as u64, WALK];
                Permutation::keyed(share.members, &key).apply(step)
            }
            None => step,
        };
        members[share.first_member + member] as usize
    }
}

/// The samples of each class.
fn by_class(source: &dyn Source) -> Result<Vec<Vec<u32>>> {
    let name = &source.info().name;
    let Some(classes) = source.spec().classes() else {
        let message = format!("{name} has {:?}, expected classes", source.spec().target);
        return Err(Error::config("--balance", message).hint("leaving it out"));
    };
    if u32::try_from(source.len()).is_err() {
        let message = format!("found {} samples, expected at most {}", source.len(), u32::MAX);
        return Err(Error::config("--balance", message));
    }
    let mut groups = vec![Vec::new(); classes];
    for index in 0..source.len() {
        let Some(class) = source.class(index) else {
            let message =
                format!("{name} does not tell the classes of its samples before reading them");
            return Err(Error::config("--balance", message).hint("leaving it out"));
        };
        let group = groups.get_mut(class as usize).ok_or_else(|| {
            let message =
                format!("found label {class} at sample {index}, expected a label below {classes}");
            Error::data(name, message)
        })?;
        group.push(index as u32);
    }
    Ok(groups)
}

/// The weight of each class.
fn weights_of(
    source: &dyn Source,
    groups: &[Vec<u32>],
    given: &BTreeMap<String, f64>,
) -> Result<Vec<f64>> {
    let wrong = |message: String| Error::config("--class-weights", message);
    let mut weights: Vec<f64> =
        groups.iter().map(|group| if group.is_empty() { 0.0 } else { 1.0 }).collect();
    for (name, &weight) in given {
        let named = (0..groups.len()).find(|&class| class_name(source, class) == *name);
        let numbered = || name.parse().ok().filter(|&class: &usize| class < groups.len());
        let Some(class) = named.or_else(numbered) else {
            let names: Vec<String> =
                (0..groups.len().min(NAMES_SHOWN)).map(|class| class_name(source, class)).collect();
            let more = if groups.len() > NAMES_SHOWN { ", …" } else { "" };
            let message = format!("found class {name}, expected one of {}{more}", names.join(", "));
            return Err(wrong(message));
        };
        if !(weight.is_finite() && weight >= 0.0) {
            let message =
                format!("found weight {weight} of class {name}, expected a number from 0");
            return Err(wrong(message));
        }
        if groups[class].is_empty() && weight > 0.0 {
            let message = format!("class {name} has no samples to draw from");
            return Err(wrong(message).hint(format!("{name}=0")));
        }
        weights[class] = weight;
    }
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 && sum.is_finite() {
        return Ok(weights);
    }
    Err(wrong(format!("the weights add up to {sum}, expected a finite number above 0")))
}

/// Class names that an error lists.
const NAMES_SHOWN: usize = 20;

fn class_name(source: &dyn Source, class: usize) -> String {
    source.info().class_names.get(class).cloned().unwrap_or_else(|| class.to_string())
}

/// How many of `total` belong to each weight: its share rounded down, and one more for the largest remainders, the
/// first of equal ones.
fn apportion(weights: &[f64], total: usize) -> Vec<usize> {
    let sum: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|weight| weight / sum * total as f64).collect();
    let mut counts: Vec<usize> = shares.iter().map(|share| share.floor() as usize).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
    by_remainder.sort_by(|&a, &b| shares[b].fract().total_cmp(&shares[a].fract()));
    let left = total.saturating_sub(counts.iter().sum());
    by_remainder.iter().cycle().take(left).for_each(|&i| counts[i] += 1);
    counts
}

/// The draws of an epoch, ordered so that those of each class are spread evenly: draw *j* of *n* at (j + ½)/n.
fn spread(shares: &[Share]) -> Vec<u32> {
    let draws = |share: &Share| {
        let (first, count) = (share.first_draw, share.draws);
        (0..count).map(move |j| ((j as f64 + 0.5) / count as f64, (first + j) as u32))
    };
    let mut all: Vec<(f64, u32)> = shares.iter().flat_map(draws).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter().map(|(_, draw)| draw).collect()
}
