//! Every order is what it says, for every number of samples, rank and epoch.

use super::*;
use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::source::resident::{Inputs, Resident, Targets};
use crate::source::{SourceInfo, Synthetic};

#[test]
fn orders_are_those_of_all_versions_before() {
    assert_eq!(order(1000, 1, 2)[..8], [918, 645, 701, 320, 283, 614, 290, 954]);
    let last = [55226, 53209, 33394, 27590, 42737, 15094, 15575, 6291];
    assert_eq!(order(60_000, 7, 0)[59_992..], last);
}

fn order(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    whole(&Sampler::new(len, 7, seed, true, false).unwrap(), epoch)
}

/// All samples of an epoch.
fn whole(sampler: &Sampler, epoch: u64) -> Vec<usize> {
    (0..sampler.steps_per_epoch()).flat_map(|b| sampler.indices(epoch, b)).collect()
}

#[track_caller]
fn expect_permutation(mut order: Vec<usize>, len: usize, what: &str) {
    order.sort_unstable();
    assert!(order.into_iter().eq(0..len), "{what}");
}

/// Around squares and powers of two, primes, and a million.
fn lengths() -> impl Iterator<Item = usize> {
    let powers = (9..=14).flat_map(|bits| (1usize << bits) - 1..=(1 << bits) + 1);
    (1..300).chain(powers).chain([997, 7919, 65_537, 1_000_000])
}

#[test]
fn every_epoch_visits_every_sample_once() {
    for len in lengths() {
        for (seed, epoch) in [(0, 0), (1, 0), (u64::MAX, 3)] {
            let what = format!("len {len}, seed {seed}, epoch {epoch}");
            expect_permutation(order(len, seed, epoch), len, &what);
        }
    }
}

#[test]
fn orders_depend_on_seed_and_epoch_and_on_nothing_else() {
    assert_eq!(order(1000, 1, 2), order(1000, 1, 2));
    assert_ne!(order(1000, 1, 2), order(1000, 1, 3));
    assert_ne!(order(1000, 1, 2), order(1000, 2, 2));
    // The batch size only cuts the same order elsewhere, and any batch can be asked for alone.
    let other = Sampler::new(1000, 64, 1, true, false).unwrap();
    assert!(other.indices(2, 3).eq(order(1000, 1, 2)[192..256].iter().copied()));
}

/// Pearson's χ² over (position, sample), for lengths around the grid's edges; with n² cells and
/// (n − 1)² degrees of freedom it stays below the mean plus five deviations.
#[test]
fn every_sample_is_as_likely_at_every_position() {
    for len in [5usize, 16, 17, 23] {
        let draws = 4000;
        let mut counts = vec![0f64; len * len];
        for seed in 0..draws {
            let order = order(len, seed, 0);
            order.iter().enumerate().for_each(|(at, &i)| counts[at * len + i] += 1.0);
        }
        let expected = draws as f64 / len as f64;
        let chi2: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
        let degrees = ((len - 1) * (len - 1)) as f64;
        assert!(chi2 < degrees + 5.0 * (2.0 * degrees).sqrt(), "len {len}: {chi2} of {degrees}");
    }
}

#[test]
fn neighbours_are_parted() {
    let order = order(60_000, 1, 0);
    let close = order.windows(2).filter(|w| w[0].abs_diff(w[1]) < 300).count();
    // 600 of 60,000 places are that close, so about 600 pairs by chance.
    assert!((450..750).contains(&close), "{close}");
}

#[test]
fn the_last_batch_is_partial_or_dropped() {
    let keep = Sampler::new(10, 4, 0, false, false).unwrap();
    assert_eq!(keep.steps_per_epoch(), 3);
    assert!(keep.indices(0, 2).eq([8, 9]));
    assert_eq!(keep.indices(0, 3).len(), 0);
    assert_eq!(keep.indices(0, 9).len(), 0);
    let drop = Sampler::new(10, 4, 0, false, true).unwrap();
    assert_eq!(drop.steps_per_epoch(), 2);
    assert!(drop.indices(5, 1).eq(4..8));
    assert_eq!(drop.indices(0, 2).len(), 0);
}

#[test]
fn what_would_yield_nothing_is_refused() {
    let message =
        |len, batch, drop| Sampler::new(len, batch, 0, true, drop).unwrap_err().to_string();
    assert_eq!(message(0, 4, false), "config: data set: found 0 samples, expected at least 1");
    assert_eq!(message(3, 0, false), "config: batch size: found 0, expected at least 1");
    assert_eq!(
        message(3, 4, true),
        "config: batch size: found 4, expected at most the 3 samples there are: no batch is full; try --batch-size 3"
    );
    assert!(Sampler::new(3, 4, 0, true, false).is_ok());
}

fn blocks(len: usize, block_len: usize, seed: u64) -> Sampler {
    Sampler::new(len, 64, seed, true, false).unwrap().in_blocks(block_len).unwrap()
}

#[test]
fn blocks_visit_every_sample_once() {
    for len in lengths() {
        for block_len in [1, 2, 7, 16, 100, 1000, len, len + 1, usize::MAX] {
            for epoch in [0, 1] {
                let what = format!("len {len}, blocks of {block_len}, epoch {epoch}");
                expect_permutation(whole(&blocks(len, block_len, 5), epoch), len, &what);
            }
        }
    }
}

#[test]
fn a_window_of_places_needs_few_blocks() {
    for (len, block_len) in [(10_000, 100), (10_037, 100), (999, 10)] {
        let order = whole(&blocks(len, block_len, 1), 3);
        for window in order.chunks(block_len * WINDOW_BLOCKS) {
            let mut needed: Vec<usize> = window.iter().map(|i| i / block_len).collect();
            needed.sort_unstable();
            needed.dedup();
            // A short block moves the windows' edges into blocks.
            assert!(needed.len() <= WINDOW_BLOCKS + 2, "{needed:?}");
        }
        // Blocks are parted, and samples do not come in the order of the source.
        let ascending = order.windows(2).filter(|pair| pair[0] + 1 == pair[1]).count();
        assert!(ascending < len / 50, "{ascending}");
        assert_ne!(order, whole(&blocks(len, block_len, 1), 4));
        assert_ne!(order, whole(&blocks(len, block_len, 2), 3));
    }
}

#[test]
fn without_shuffling_blocks_change_nothing() {
    let plain = Sampler::new(100, 7, 1, false, false).unwrap().in_blocks(8).unwrap();
    assert!(whole(&plain, 3).into_iter().eq(0..100));
}

/// Pearson's χ² of the samples at each place, over seeds: `len - 1` degrees of freedom each. Blocks of a length that
/// divides the number of samples leave no place special.
#[test]
fn in_blocks_every_sample_is_as_likely_at_every_place() {
    for (len, block_len) in [(24usize, 4), (24, 1), (60, 5), (16, 16)] {
        let draws = 4000;
        let mut counts = vec![0f64; len * len];
        for seed in 0..draws {
            let order = whole(&blocks(len, block_len, seed), 0);
            order.iter().enumerate().for_each(|(place, &i)| counts[place * len + i] += 1.0);
        }
        let (expected, degrees) = (draws as f64 / len as f64, (len - 1) as f64);
        for (place, counts) in counts.chunks(len).enumerate() {
            let chi2: f64 = counts.iter().map(|c| (c - expected).powi(2) / expected).sum();
            let most = degrees + 5.0 * (2.0 * degrees).sqrt();
            assert!(chi2 < most, "place {place} of {len} in blocks of {block_len}: {chi2}");
        }
    }
}

/// Every rank's batches of an epoch.
fn ranks(sampler: &Sampler, world: usize, epoch: u64) -> Vec<Vec<Vec<usize>>> {
    let of_rank = |rank| {
        let sampler = sampler.clone().sharded(rank, world).unwrap();
        let batch = |batch| sampler.indices(epoch, batch).collect();
        (0..sampler.steps_per_epoch()).map(batch).collect()
    };
    (0..world).map(of_rank).collect()
}

#[test]
fn ranks_are_disjoint_and_together_everything_in_as_many_steps() {
    for len in [1usize, 2, 7, 16, 17, 63, 64, 65, 127, 1000, 4099] {
        for world in [1, 2, 3, 4, 7, 8] {
            for batch_size in [1, 2, 3, 16, 64] {
                for shuffle in [false, true] {
                    let plain = Sampler::new(len, batch_size, 3, shuffle, false).unwrap();
                    let sampler = [plain.clone(), plain.in_blocks(5).unwrap()];
                    for sampler in sampler {
                        let what = format!("{len} samples, {world} ranks, {batch_size} a batch");
                        if len / world < len.div_ceil(world).div_ceil(batch_size) {
                            assert!(sampler.sharded(0, world).is_err(), "{what}");
                            continue;
                        }
                        let ranks = ranks(&sampler, world, 2);
                        assert!(ranks.iter().all(|rank| rank.len() == ranks[0].len()), "{what}");
                        let batches = ranks.iter().flatten();
                        let fits = |batch: &Vec<usize>| (1..=batch_size).contains(&batch.len());
                        assert!(batches.clone().all(fits), "{what}");
                        expect_permutation(batches.flatten().copied().collect(), len, &what);
                    }
                }
            }
        }
    }
}

#[test]
fn ranks_that_drop_the_last_have_full_batches_of_their_own() {
    for (len, world, batch_size) in [(100, 3, 8), (64, 4, 16), (65, 4, 16), (79, 4, 16), (8, 8, 1)]
    {
        let plain = Sampler::new(len, batch_size, 3, true, true).unwrap();
        for sampler in [plain.clone(), plain.in_blocks(5).unwrap()] {
            let ranks = ranks(&sampler, world, 1);
            assert!(ranks.iter().all(|rank| rank.len() == len / world / batch_size));
            assert!(ranks.iter().flatten().all(|batch| batch.len() == batch_size));
            let mut all: Vec<usize> = ranks.iter().flatten().flatten().copied().collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), len / world / batch_size * world * batch_size);
        }
    }
}

#[test]
fn the_batches_of_all_ranks_are_a_larger_batch_of_one() {
    for drop_last in [false, true] {
        let sampler = |batch_size| Sampler::new(1000, batch_size, 3, true, drop_last).unwrap();
        let (ranks, alone) = (ranks(&sampler(16), 4, 5), sampler(64));
        assert_eq!(ranks[0].len(), alone.steps_per_epoch());
        for batch in 0..ranks[0].len() {
            let mut together: Vec<usize> = ranks.iter().flat_map(|r| r[batch].clone()).collect();
            let mut expected: Vec<usize> = alone.indices(5, batch).collect();
            together.sort_unstable();
            expected.sort_unstable();
            assert_eq!(together, expected, "batch {batch}");
        }
    }
}

#[test]
fn in_blocks_each_rank_reads_blocks_of_its_own() {
    let sampler = blocks(8000, 100, 1);
    let ranks = ranks(&sampler, 4, 0);
    for rank in ranks {
        let mut needed: Vec<usize> = rank.iter().flatten().map(|i| i / 100).collect();
        needed.sort_unstable();
        needed.dedup();
        // 20 blocks of 80, and those that a window shares with the neighbours.
        assert!(needed.len() <= 20 + 2 * WINDOW_BLOCKS, "{}", needed.len());
    }
}

#[test]
fn ranks_that_cannot_be_are_refused() {
    let sampler = |len, batch_size, drop_last| {
        Sampler::new(len, batch_size, 0, true, drop_last).expect("enough for one rank")
    };
    let refusal = |sampler: Sampler, rank, world| {
        sampler.sharded(rank, world).expect_err("must be refused").to_string()
    };
    assert!(
        refusal(sampler(9, 1, false), 2, 2).contains("found rank 2 of 2, expected a rank below 2")
    );
    assert!(refusal(sampler(9, 1, false), 0, 0).contains("found rank 0 of 0"));
    let message = refusal(sampler(9, 1, false), 0, 2);
    assert!(
        message.contains("some rank would have a batch without one; try --drop-last"),
        "{message}"
    );
    let message = refusal(sampler(9, 5, true), 0, 2);
    assert!(message.contains("expected at most the 4 samples of a rank there are"), "{message}");
}

/// One sample a label.
fn labelled(labels: &[u32], class_names: &[&str], classes: usize) -> Resident {
    let spec = SampleSpec {
        input_shape: vec![1],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes },
    };
    let class_names = class_names.iter().map(|&name| name.into()).collect();
    let info = SourceInfo { name: "labels".into(), class_names, ..Default::default() };
    let inputs = Inputs::Bytes(vec![0; labels.len()]);
    Resident::new(spec, info, inputs, Targets::Classes(labels.to_vec())).expect("fits")
}

/// 70 of class 0, 25 of class 1, 5 of class 2 and none of class 3.
fn uneven() -> Resident {
    let labels: Vec<u32> =
        (0..100).map(|i| [0, 1, 2][(i % 20 >= 14) as usize + (i % 20 == 19) as usize]).collect();
    labelled(&labels, &["many", "some", "few", "none"], 4)
}

fn balanced(source: &Resident, shuffle: bool, weights: &[(&str, f64)]) -> Result<Sampler> {
    let weights = weights.iter().map(|&(name, weight)| (name.into(), weight)).collect();
    Sampler::new(source.len(), 8, 3, shuffle, false)?.balanced(source, &weights)
}

fn drawn(source: &Resident, order: &[usize]) -> Vec<usize> {
    let mut counts = vec![0; source.spec().classes().expect("classes")];
    order.iter().for_each(|&i| counts[source.class(i).expect("known") as usize] += 1);
    counts
}

#[test]
fn every_class_is_drawn_equally_often_or_by_its_weight() {
    let source = uneven();
    type Case<'a> = (&'a [(&'a str, f64)], [usize; 4]);
    let cases: [Case<'_>; 4] = [
        (&[], [34, 33, 33, 0]),
        (&[("few", 2.0)], [25, 25, 50, 0]),
        (&[("2", 0.5), ("some", 0.0), ("none", 0.0)], [67, 0, 33, 0]),
        (&[("many", 0.0), ("some", 0.0)], [0, 0, 100, 0]),
    ];
    for (weights, expected) in cases {
        for shuffle in [true, false] {
            let sampler = balanced(&source, shuffle, weights).expect("can be drawn");
            for epoch in 0..3 {
                assert_eq!(drawn(&source, &whole(&sampler, epoch)), expected, "{weights:?}");
            }
        }
    }
}

#[test]
fn balanced_draws_forget_no_sample() {
    let source = uneven();
    for shuffle in [true, false] {
        let sampler = balanced(&source, shuffle, &[]).expect("can be drawn");
        let draws: Vec<usize> = (0..35).flat_map(|epoch| whole(&sampler, epoch)).collect();
        let mut times = vec![0usize; 100];
        for (at, &sample) in draws.iter().enumerate() {
            times[sample] += 1;
            let end_of_epoch = (at + 1) % 100 == 0;
            if end_of_epoch {
                // 34 and 33 draws an epoch of 70, 25 and 5 samples: all came as often, or once more.
                for class in 0..3 {
                    let of_class: Vec<usize> = (0..100)
                        .filter(|&i| source.class(i) == Some(class))
                        .map(|i| times[i])
                        .collect();
                    let (least, most) = (of_class.iter().min(), of_class.iter().max());
                    assert!(most.unwrap() - least.unwrap() <= 1, "class {class}: {of_class:?}");
                }
            }
        }
        assert_eq!(times.iter().sum::<usize>(), 3500);
        assert!(times.iter().all(|&times| times >= 35 * 34 / 70));
    }
}

#[test]
fn balanced_draws_are_shuffled_between_and_within_classes() {
    let source = uneven();
    let sampler = balanced(&source, true, &[]).expect("can be drawn");
    assert_ne!(whole(&sampler, 0), whole(&sampler, 1));
    // χ² over the 70 samples of class 0 in one epoch, over seeds: 34 of 70 are drawn, each as likely.
    let mut counts = vec![0f64; 100];
    let seeds = 2000;
    for seed in 0..seeds {
        let plain = Sampler::new(100, 8, seed, true, false).unwrap();
        let sampler = plain.balanced(&source, &BTreeMap::new()).unwrap();
        whole(&sampler, 0).into_iter().for_each(|i| counts[i] += 1.0);
    }
    let expected = seeds as f64 * 34.0 / 70.0;
    let of_class = (0..100).filter(|&i| source.class(i) == Some(0)).map(|i| counts[i]);
    // Drawn without replacement, the variance is that of 36 of 70 left out.
    let chi2: f64 = of_class.map(|c| (c - expected).powi(2) / (expected * 36.0 / 70.0)).sum();
    assert!(chi2 < 69.0 + 5.0 * 138f64.sqrt(), "{chi2}");
}

#[test]
fn without_shuffling_classes_take_turns() {
    let source = uneven();
    let order = whole(&balanced(&source, false, &[]).expect("can be drawn"), 0);
    for end in 1..=100 {
        let counts = drawn(&source, &order[..end]);
        let share = end as f64 / 3.0;
        assert!(counts[..3].iter().all(|&c| (c as f64 - share).abs() <= 1.0), "{end}: {counts:?}");
    }
    // Each class in the order of the source, from its start again at its end.
    let few: Vec<usize> = order.iter().copied().filter(|&i| source.class(i) == Some(2)).collect();
    assert_eq!(few[..7], [19, 39, 59, 79, 99, 19, 39]);
}

#[test]
fn balanced_epochs_are_shared_and_cut_like_any_other() {
    let source = uneven();
    let sampler = balanced(&source, true, &[]).expect("can be drawn");
    let mut together: Vec<usize> = ranks(&sampler, 3, 4).into_iter().flatten().flatten().collect();
    let mut alone = whole(&sampler, 4);
    together.sort_unstable();
    alone.sort_unstable();
    assert_eq!(together, alone);
    let dropping = Sampler::new(100, 8, 3, true, true).unwrap();
    let dropping = dropping.balanced(&source, &BTreeMap::new()).unwrap();
    assert_eq!(whole(&dropping, 4), whole(&sampler, 4)[..96]);
}

#[test]
fn what_cannot_be_balanced_is_refused() {
    let refusal = |weights: &[(&str, f64)]| {
        balanced(&uneven(), true, weights).expect_err("must be refused").to_string()
    };
    let message = refusal(&[("cat", 1.0)]);
    assert!(
        message.contains("found class cat, expected one of many, some, few, none"),
        "{message}"
    );
    assert!(
        refusal(&[("none", 1.0)]).contains("class none has no samples to draw from; try none=0")
    );
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        let message = refusal(&[("few", weight)]);
        assert!(message.contains(&format!("found weight {weight} of class few")), "{message}");
    }
    let nothing = refusal(&[("many", 0.0), ("some", 0.0), ("few", 0.0)]);
    assert!(nothing.contains("the weights add up to 0"), "{nothing}");
    assert!(refusal(&[("few", 1e-6)]).contains("class few would have none of the 100 draws"));
    let wrong_label = labelled(&[0, 1, 2], &[], 2);
    let error = balanced(&wrong_label, true, &[]).expect_err("a label out of range");
    assert_eq!(
        error.to_string(),
        "source: labels: found label 2 at sample 2, expected a label below 2"
    );
    let target = TargetSpec::Values { len: 1 };
    let spec = SampleSpec { input_shape: vec![1], input_dtype: DType::F32, target };
    let values = Synthetic::new(10, spec, 7).unwrap();
    let plain = || Sampler::new(10, 8, 3, true, false).unwrap();
    let error = plain().balanced(&values, &BTreeMap::new()).expect_err("no classes").to_string();
    assert!(
        error.contains("--balance: synthetic has Values { len: 1 }, expected classes"),
        "{error}"
    );
    let blocks = Sampler::new(100, 8, 3, true, false).unwrap().in_blocks(5).unwrap();
    assert!(blocks.balanced(&uneven(), &BTreeMap::new()).is_err());
    assert!(balanced(&uneven(), true, &[]).unwrap().in_blocks(5).is_err());
    assert!(plain().balanced(&uneven(), &BTreeMap::new()).is_err());
}
