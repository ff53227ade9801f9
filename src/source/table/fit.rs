//! Learns from the training rows what the encoding of a table needs: means, deviations, edges, vocabularies, classes.

use std::collections::HashMap;

use rayon::prelude::*;

use super::block::{Block, MISSING, Table};
use super::fitted::{Feature, FeatureEncoding, Fitted, FittedTarget};
use super::labels::{self, Asked};
use super::plan::{How, RowPlan};
use crate::error::Result;
use crate::source::config::Task;

/// Values of a category with an element of their own, where there are more different ones than [`VALUES_MAX`].
const FREQUENT: usize = 64;

/// Elements that the other ones share then, by hash.
const SHARED: usize = 64;

/// Different values of a category that get an element each.
const VALUES_MAX: usize = FREQUENT + SHARED;

/// A value seen fewer times than this has no element of its own: nothing could be learnt about it.
const SEEN_MIN: u64 = 2;

/// Numbers that the edges of buckets are found from: enough that an edge is off by a thousandth of the rows.
const QUANTILE_NUMBERS: usize = 1 << 20;

/// Fits the encoding of `table` to the rows for which `kept` is true, or to all rows. The classes are those of all rows:
/// their number must not depend on how rows are split.
///
/// # Errors
/// When a block cannot be read, the target is missing in a row, or its values are no classes.
pub(crate) fn fit(
    table: &Table,
    plan: &RowPlan,
    kept: Option<&[bool]>,
    asked: &Asked<'_>,
) -> Result<Fitted> {
    // Blocks in parallel, merged in their order: sums do not depend on the number of threads.
    let summaries: Vec<Vec<Summary>> = (0..table.blocks())
        .into_par_iter()
        .map(|number| {
            let block = table.block(number)?;
            let start = table.start(number);
            let kept = kept.map(|kept| &kept[start..start + block.rows()]);
            Ok(summarise(table, plan, &block, kept))
        })
        .collect::<Result<_>>()?;
    let mut blocks = summaries.into_iter();
    let mut all = blocks.next().unwrap_or_default();
    for block in blocks {
        all.iter_mut().zip(block).for_each(|(all, block)| all.merge(block));
    }
    let mut columns = all.into_iter().zip(&table.columns);
    let mut features = Vec::new();
    for (&how, (summary, wanted)) in plan.features.iter().zip(&mut columns) {
        features.push(Feature { column: wanted.name.clone(), encoding: summary.encoding(how) });
    }
    let (summary, wanted) = columns.next().expect("a plan that is fitted has a target");
    let column = wanted.name.clone();
    let target = match plan.task {
        Some(Task::Regress) => {
            let (mean, std) = summary.moments();
            FittedTarget::Values { column, mean, std }
        }
        _ => {
            let names = summary.values.into_keys().collect();
            let names = labels::classes(table, plan.features.len(), names, asked)?;
            FittedTarget::Classes { column, names }
        }
    };
    Ok(Fitted { header: plan.header, features, target })
}

/// What is known about a column of some rows.
#[derive(Default)]
struct Summary {
    missing: u64,
    count: u64,
    mean: f64,
    /// Sum of the squares of the distances from the mean.
    spread: f64,
    /// For buckets: the numbers, every `stride`-th one.
    numbers: Vec<f32>,
    values: HashMap<String, u64>,
}

fn summarise(table: &Table, plan: &RowPlan, block: &Block, kept: Option<&[bool]>) -> Vec<Summary> {
    let target = plan.features.len();
    let is_kept = |row: usize| kept.is_none_or(|kept| kept[row]);
    // Every so many rows of each block, so that all blocks have their share.
    let stride = table.rows().div_ceil(QUANTILE_NUMBERS);
    let summary = |column: usize| {
        let how = plan.features.get(column).copied();
        let classifies = how.is_none() && plan.task != Some(Task::Regress);
        if how == Some(How::Category) || classifies {
            // All rows have a say in what classes there are.
            let counted = |row: usize| classifies || is_kept(row);
            return Summary::of_codes(block, column, counted);
        }
        let mut summary = Summary::of_numbers(block, column, is_kept);
        if matches!(how, Some(How::Buckets(_))) {
            let numbers = block.numbers(column).enumerate();
            let some = numbers.filter(|&(row, x)| row % stride == 0 && is_kept(row) && !x.is_nan());
            summary.numbers = some.map(|(_, x)| x).collect();
        }
        summary
    };
    (0..target + usize::from(plan.task.is_some())).map(summary).collect()
}

impl Summary {
    fn of_codes(block: &Block, column: usize, counted: impl Fn(usize) -> bool) -> Self {
        let vocabulary = &block.vocabularies[column];
        let mut counts = vec![0u64; vocabulary.len()];
        let mut missing = 0;
        for (row, code) in block.codes(column).enumerate() {
            if counted(row) {
                match code {
                    MISSING => missing += 1,
                    code => counts[code as usize] += 1,
                }
            }
        }
        let mut values: HashMap<String, u64> = HashMap::new();
        // A vocabulary from a file may hold a value twice, and values that do not occur.
        for (value, count) in vocabulary.iter().zip(counts).filter(|&(_, count)| count > 0) {
            *values.entry(value.clone()).or_default() += count;
        }
        Self { missing, values, ..Default::default() }
    }

    fn of_numbers(block: &Block, column: usize, kept: impl Fn(usize) -> bool) -> Self {
        let (mut missing, mut count, mut sum) = (0, 0, 0.0);
        for (row, x) in block.numbers(column).enumerate() {
            if kept(row) {
                match x.is_nan() {
                    true => missing += 1,
                    false => (count, sum) = (count + 1, sum + f64::from(x)),
                }
            }
        }
        let mean = if count > 0 { sum / count as f64 } else { 0.0 };
        let mut spread = 0.0;
        for (row, x) in block.numbers(column).enumerate() {
            if kept(row) && !x.is_nan() {
                spread += (f64::from(x) - mean).powi(2);
            }
        }
        Self { missing, count, mean, spread, ..Default::default() }
    }

    /// Takes in what is known about further rows (Chan et al., 1983).
    fn merge(&mut self, other: Summary) {
        self.missing += other.missing;
        if other.count > 0 {
            let (n, m) = (self.count as f64, other.count as f64);
            let distance = other.mean - self.mean;
            self.mean += distance * m / (n + m);
            self.spread += other.spread + distance * distance * n * m / (n + m);
            self.count += other.count;
        }
        self.numbers.extend(other.numbers);
        for (value, count) in other.values {
            *self.values.entry(value).or_default() += count;
        }
    }

    fn moments(&self) -> (f64, f64) {
        let std = (self.spread / self.count.max(1) as f64).sqrt();
        (self.mean, if std > 0.0 { std } else { 1.0 })
    }

    fn encoding(self, how: How) -> FeatureEncoding {
        let missing = self.missing > 0;
        match how {
            How::Number => {
                let (mean, std) = self.moments();
                FeatureEncoding::Number { mean, std, missing }
            }
            How::Buckets(buckets) => {
                FeatureEncoding::Buckets { edges: edges(self.numbers, buckets), missing }
            }
            How::Category => {
                let (values, shared) = vocabulary(self.values);
                FeatureEncoding::Categories { values, shared, missing }
            }
        }
    }
}

/// Edges between `buckets` quantiles; fewer where a number is so common that it fills several.
fn edges(mut numbers: Vec<f32>, buckets: usize) -> Vec<f32> {
    numbers.sort_by(f32::total_cmp);
    let least = numbers.first().copied();
    let at = |i: usize| numbers.get(numbers.len() * i / buckets).copied();
    let mut edges: Vec<f32> = (1..buckets).filter_map(at).collect();
    edges.dedup();
    // Nothing would fall below the least number.
    edges.retain(|edge| Some(*edge) != least);
    edges
}

/// The values with an element of their own, the most frequent first, and how many elements the others share.
fn vocabulary(counts: HashMap<String, u64>) -> (Vec<String>, usize) {
    let different = counts.len();
    let mut frequent: Vec<(String, u64)> =
        counts.into_iter().filter(|(_, count)| *count >= SEEN_MIN).collect();
    frequent.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    if different > VALUES_MAX {
        frequent.truncate(FREQUENT);
    }
    let shared = match different - frequent.len() {
        0 => 0,
        _ if different > VALUES_MAX => SHARED,
        _ => 1,
    };
    (frequent.into_iter().map(|(value, _)| value).collect(), shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> HashMap<String, u64> {
        counts.iter().map(|(value, count)| (value.to_string(), *count)).collect()
    }

    #[test]
    fn rare_values_share_elements() {
        let found = vocabulary(counts(&[("b", 5), ("a", 5), ("c", 9), ("once", 1)]));
        assert_eq!(found, (vec!["c".into(), "a".into(), "b".into()], 1));
        assert_eq!(vocabulary(counts(&[("a", 2)])), (vec!["a".into()], 0));
        let many = (0..1000).map(|i| (i.to_string(), 2 + i)).collect();
        let (values, shared) = vocabulary(many);
        assert_eq!((values.len(), &*values[0], shared), (64, "999", 64));
    }

    #[test]
    fn edges_part_numbers_evenly() {
        let numbers = (0..100u8).rev().map(f32::from).collect();
        assert_eq!(edges(numbers, 4), [25.0, 50.0, 75.0]);
        // Most are 0, and nothing lies below.
        let mut numbers = vec![0.0; 90];
        numbers.extend((1..=10u8).map(f32::from));
        assert_eq!(edges(numbers, 10), [1.0]);
        // Most are 5, which fills several buckets.
        let mut numbers = vec![5.0; 80];
        numbers.extend((0..20u8).map(|i| f32::from(i % 10)));
        assert_eq!(edges(numbers, 10), [5.0]);
        assert!(edges(vec![], 10).is_empty());
    }

    #[test]
    fn moments_do_not_depend_on_how_rows_are_cut() {
        let cells: Vec<u32> = (0..999u16).map(|i| (1e4 + f32::from(i % 37)).to_bits()).collect();
        let block = |cells: &[u32]| Block { width: 1, cells: cells.to_vec(), vocabularies: vec![] };
        let whole = Summary::of_numbers(&block(&cells), 0, |_| true);
        let mut parts = Summary::default();
        cells.chunks(300).for_each(|c| parts.merge(Summary::of_numbers(&block(c), 0, |_| true)));
        let (a, b) = (whole.moments(), parts.moments());
        crate::testing::assert_close(&[a.0, a.1], &[b.0, b.1], 0.0, 1e-12);
        // Whole rounds of 37 numbers.
        crate::testing::assert_close(&[a.0, a.1], &[1e4 + 18.0, 114f64.sqrt()], 0.0, 1e-12);
    }
}
