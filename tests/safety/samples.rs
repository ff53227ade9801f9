//! Samples that cannot be decoded, and transforms that panic over one.

use super::{Desk, losses};

#[test]
fn a_corrupt_sample_is_an_error_or_replaced_the_same_way_each_time() {
    let desk = Desk::new();
    let ended = desk.train("error", "--steps 14", "corrupt@37", 3);
    assert!(ended.error().contains("sample 37") && ended.error().contains("cannot be decoded"));
    let flags = "--epochs 3 --on-bad-sample quarantine";
    let whole = desk.train("whole", flags, "corrupt@37,corrupt@40", 0);
    assert_eq!(whole.all("done")[0]["bad_samples"], 2);
    let ledger = std::fs::read_to_string(desk.path("whole/quarantine.jsonl")).expect("a ledger");
    assert_eq!(ledger.lines().count(), 2, "{ledger}");
    let first = desk.train("part", &format!("{flags} --steps 13"), "corrupt@37,corrupt@40", 2);
    assert!(first.error().contains("--epochs"), "both lengths are one too many");
    desk.train("part", "--steps 13 --on-bad-sample quarantine", "corrupt@37,corrupt@40", 0);
    let line = "train --resume part --epochs 3 --json";
    let resumed = desk.run(line, "corrupt@37,corrupt@40", 0);
    assert_eq!(resumed.hash(), whole.hash());
}

#[test]
fn a_corrupt_sample_costs_no_step_before_it() {
    let desk = Desk::new();
    let whole = desk.train("whole", "--steps 14 --no-shuffle", "", 0);
    let ended = desk.train("out", "--steps 14 --no-shuffle", "corrupt@61", 3);
    assert!(ended.error().contains("sample 61"), "{}", ended.error());
    assert_eq!((ended.all("step").len(), ended.all("checkpoint").len()), (7, 1), "{ended:?}");
    assert_eq!(desk.checkpoints("out"), ["step-7"]);
    let resumed = desk.run("train --resume out --json", "", 0);
    assert_eq!(resumed.hash(), whole.hash());
    assert_eq!(losses(&desk.path("out")), losses(&desk.path("whole")));
    assert_eq!(resumed.all("epoch")[0]["loss"], whole.all("epoch")[0]["loss"]);
}

#[test]
fn a_panicking_transform_ends_the_run_with_the_sample() {
    let desk = Desk::new();
    let ended = desk.train("out", "--steps 14 --checkpoint-every 2 --no-shuffle", "panic@95", 3);
    let error = ended.error();
    assert!(error.contains("sample 95") && error.contains("a panic planned by a test"), "{error}");
    desk.run("checkpoint verify out", "", 0);
}
