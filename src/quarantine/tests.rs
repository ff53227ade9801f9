//! What is entered, remembered and refused.

use std::io::Write;

use super::*;
use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::graph::plan::Pass;
use crate::source::Synthetic;

fn source(len: usize) -> Arc<dyn Source> {
    let target = TargetSpec::Class { classes: 2 };
    let spec = SampleSpec { input_shape: vec![1], input_dtype: DType::U8, target };
    Arc::new(Synthetic::new(len, spec, 7).expect("can be made"))
}

fn quarantine(on: OnBadSample, budget: u64) -> Quarantine {
    Quarantine::new(on, Budget::Samples(budget), source(50), Some(source(20)))
}

fn work(split: Split, step: u64) -> Work {
    Work {
        pass: Pass::Train,
        split,
        epoch: 2,
        step,
        micro_step: 0,
        weight: 1.0,
        indices: Vec::new(),
        last: false,
        bad: 0,
    }
}

fn faults(samples: &[usize]) -> Faults {
    let error = |&sample: &usize| (sample, Error::data("file", "is damaged"));
    Faults { bad: samples.iter().map(error).collect(), ..Default::default() }
}

fn samples_in(dir: &Path) -> Vec<usize> {
    let text = std::fs::read_to_string(dir.join(LEDGER_FILE)).expect("a ledger");
    let entry = |line| serde_json::from_str::<Entry>(line).expect("a line of JSON").sample;
    text.lines().map(entry).collect()
}

#[test]
fn stand_ins_are_all_others_and_depend_on_seed_epoch_and_sample() {
    let books = quarantine(OnBadSample::Skip, 3);
    let order = |seed, epoch, sample| {
        let keys = Keys { seed, epoch };
        books.part(Split::Train).stand_ins(keys, sample).collect::<Vec<_>>()
    };
    let mut all = order(1, 2, 3);
    assert_eq!(all, order(1, 2, 3));
    for other in [order(2, 2, 3), order(1, 3, 3), order(1, 2, 4)] {
        assert_ne!(all, other);
    }
    all.sort_unstable();
    assert!(all.into_iter().eq((0..50).filter(|&i| i != 3)));
}

#[test]
fn a_ledger_is_gone_on_with_and_a_torn_line_is_cut_off() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let open = |goes_on| quarantine(OnBadSample::Quarantine, 9).in_folder(dir.path(), goes_on);
    let books = open(false).expect("opens");
    books.settle(&work(Split::Train, 1), faults(&[9, 4])).expect("within the budget");
    books.settle(&work(Split::Validation, 1), faults(&[4])).expect("within the budget");
    books.settle(&work(Split::Train, 2), faults(&[4, 7])).expect("within the budget");
    assert_eq!(samples_in(dir.path()), [4, 9, 4, 7]);
    drop(books);
    let path = dir.path().join(LEDGER_FILE);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("opens");
    file.write_all(b"{\"event\":\"quaran").expect("writes");
    drop(file);
    let books = open(true).expect("opens again");
    assert_eq!(samples_in(dir.path()), [4, 9, 4, 7]);
    let met = |split: Split| (0..50).filter(|&i| books.part(split).has_met(i)).collect::<Vec<_>>();
    assert_eq!(met(Split::Train), [4, 7, 9]);
    assert_eq!(met(Split::Validation), [4]);
    assert_eq!(books.count(), 4);
    books.settle(&work(Split::Train, 3), faults(&[7, 1])).expect("within the budget");
    assert_eq!(samples_in(dir.path()), [4, 9, 4, 7, 1]);
    // What the ledger holds may be mended: it counts once it is met again. A new run begins with none.
    let fewer = quarantine(OnBadSample::Quarantine, 2).in_folder(dir.path(), true);
    let fewer = fewer.expect("opens though four were met");
    fewer.settle(&work(Split::Train, 4), faults(&[1, 9])).expect("within the budget");
    let message = fewer.settle(&work(Split::Train, 4), faults(&[7])).expect_err("a third");
    let expected =
        "found 3 bad samples of 50, expected at most 2 (--bad-sample-budget): sample 1 of";
    assert!(message.to_string().contains(expected), "{message}");
    assert_eq!(samples_in(dir.path()), [4, 9, 4, 7, 1]);
    assert_eq!(open(false).expect("opens anew").count(), 0);
    assert!(samples_in(dir.path()).is_empty());
}

#[test]
fn a_line_of_another_sample_is_passed_over() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let open = |goes_on| quarantine(OnBadSample::Quarantine, 9).in_folder(dir.path(), goes_on);
    let books = open(false).expect("opens");
    books.settle(&work(Split::Train, 1), faults(&[3, 4, 49])).expect("within the budget");
    drop(books);
    // The third is now another one, the last is gone.
    let path = dir.path().join(LEDGER_FILE);
    let ledger = std::fs::read_to_string(&path).expect("reads");
    let moved =
        ledger.replace("\"sample\":3", "\"sample\":5").replace("\"sample\":49", "\"sample\":90");
    std::fs::write(&path, moved).expect("writes");
    let books = open(true).expect("opens again");
    let met: Vec<_> = (0..100).filter(|&i| books.part(Split::Train).has_met(i)).collect();
    assert_eq!(met, [4]);
}

#[test]
fn the_budget_counts_each_bad_sample_once() {
    let books = quarantine(OnBadSample::Skip, 3);
    let train = books.part(Split::Train);
    books.settle(&work(Split::Train, 0), faults(&[1, 2, 3])).expect("within the budget");
    books.settle(&work(Split::Train, 1), faults(&[3, 2])).expect("no new one");
    books.settle(&work(Split::Validation, 1), faults(&[5, 6, 7])).expect("a budget of its own");
    assert!(!train.exceeds(&faults(&[1, 2, 3, 3]).bad) && train.exceeds(&faults(&[4]).bad));
    let error = books.settle(&work(Split::Train, 2), faults(&[8])).expect_err("a fourth");
    assert_eq!(
        error.to_string(),
        "prepare: synthetic: found 4 bad samples of 50, expected at most 3 (--bad-sample-budget): \
         sample 1 of synthetic, sample 2 of synthetic, sample 3 of synthetic, …; try mending the data, or a larger \
         --bad-sample-budget"
    );
    assert_eq!(error.kind().exit_code(), 3);
}
