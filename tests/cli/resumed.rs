//! Runs that go on.

use std::path::Path;

use serde_json::Value;

use super::{Desk, SMALL, events};

#[test]
fn a_resumed_run_goes_on_where_it_was() {
    let desk = Desk::new();
    let hash = |all: &[Value]| all.last().expect("events")["parameter_hash"].clone();
    let whole = desk.train("--out whole");
    let line = format!("train fashion-mnist-10k {SMALL} --steps 12 --out part");
    desk.json(&line, 0);
    desk.refused("train --resume part --out other", 2, &["--out"]);
    desk.refused("train fashion-mnist --resume part", 2, &["fashion-mnist-10k"]);
    let rest = desk.json("train --resume part --steps 20 --json", 0);
    let steps = events(&rest, "step");
    assert_eq!((steps.len(), &steps[0]["step"]), (8, &13.into()));
    assert_eq!(hash(&rest), hash(&whole));
    let metrics = std::fs::read_to_string(desk.path("part/metrics.jsonl")).expect("metrics");
    assert_eq!(metrics.lines().count(), 20);
}

#[test]
fn what_a_run_goes_on_with_otherwise_is_told() {
    let desk = Desk::new();
    let line = format!("train fashion-mnist-10k {SMALL} --out run");
    desk.json(&format!("{line} --steps 4"), 0);
    let told = |more: &str| {
        let (_, told) = desk.run(&format!("train --resume run --json {more}"), 0);
        let settings = told.lines().find_map(|l| l.split_once("goes on with other settings: "));
        settings.map(|(_, settings)| settings.to_string())
    };
    assert_eq!(told("--steps 6").as_deref(), Some("steps 6 (was 4)"));
    assert_eq!(told("--steps 6 --batch-size 50"), None, "they are its settings now");
    let changed = "batch_size 100 (was 50), lr 0.01 (was 0.001), sampling.balance true (was false), seed 7 (was 0), steps 8 (was 6)";
    let more = "--steps 8 --batch-size 100 --lr 0.01 --balance --seed 7";
    assert_eq!(told(more).as_deref(), Some(changed));
    assert_eq!(
        told("--steps 9 --transforms horizontal-flip,pad-crop").as_deref(),
        Some("steps 9 (was 8), transforms"),
        "what is long is only called by its name"
    );
}

#[test]
fn a_run_is_not_validated_with_what_it_was_trained_on() {
    let desk = Desk::new();
    let line = format!("train fashion-mnist-10k {SMALL} --steps 2");
    desk.json(&format!("{line} --val-split 0.1 --out split"), 0);
    desk.json(&format!("{line} --out whole"), 0);
    let refused = |line: &str, found: &str, had: &str| {
        let parts = [found, had, "validated with samples it was trained on"];
        desk.refused(&format!("train --resume {line}"), 2, &parts);
    };
    let had = "the run had --val-split 0.1 --seed 0";
    refused("split --seed 7", "found --val-split 0.1 --seed 7", had);
    refused("split --val-split 0.2", "found --val-split 0.2 --seed 0", had);
    refused(
        "whole --val-split 0.1",
        "found --val-split 0.1 --seed 0",
        "the run had no --val-split",
    );
    desk.json("train --resume split --steps 3 --json", 0);
}

#[test]
fn a_finished_run_keeps_what_was_measured() {
    let desk = Desk::new();
    desk.json(&format!("train fashion-mnist-10k {SMALL} --steps 4 --out run"), 0);
    let files = ["summary.json", "verdict.json", "metrics.jsonl", "config.toml"];
    let read = || files.map(|name| std::fs::read(desk.path(&format!("run/{name}"))).expect(name));
    let before = read();
    let (stdout, told) = desk.run("train --resume run --json", 0);
    assert!(told.contains("run is finished after 4 steps"), "{told}");
    let done: Value = serde_json::from_str(&stdout).expect("a line of JSON");
    assert_eq!((&done["event"], &done["steps"]), (&"done".into(), &4.into()));
    assert!(done["samples_per_s"].as_f64() > Some(0.0), "{done}");
    assert!(read() == before, "a file has changed");
    let more = desk.json("train --resume run --steps 5 --json", 0);
    assert_eq!(events(&more, "step").len(), 1);
}

#[cfg(unix)]
#[test]
fn a_checkpoint_that_cannot_be_read_now_is_not_gone_back_behind() {
    let desk = Desk::new();
    desk.json(&format!("train fashion-mnist-10k {SMALL} --steps 2 --out run"), 0);
    desk.json("train --resume run --steps 4 --json", 0);
    let file = desk.path("run/checkpoints/step-4/model.safetensors");
    std::fs::rename(&file, desk.path("whole")).expect("a rename");
    std::os::unix::fs::symlink("model.safetensors", &file).expect("a link to itself");
    let why = ["step-4/model.safetensors: cannot be read", "try again once it can be read"];
    desk.refused("train --resume run --steps 6", 6, &why);
    let (rows, told) = desk.run("checkpoint verify run", 6);
    assert!(why.iter().all(|part| rows.contains(part)), "{rows}");
    assert!(told.contains("1 of 2 checkpoints") && !told.contains("removing"), "{told}");
    std::fs::rename(desk.path("whole"), &file).expect("a rename");
    let rest = desk.json("train --resume run --steps 6 --json", 0);
    assert_eq!(events(&rest, "step")[0]["step"], 5);
}

#[test]
fn what_a_run_went_back_behind_is_listed_as_abandoned() {
    let desk = Desk::new();
    desk.json(&format!("train fashion-mnist-10k {SMALL} --steps 2 --out run"), 0);
    desk.json("train --resume run --steps 4 --json", 0);
    let state = desk.path("run/checkpoints/step-4/state.safetensors");
    std::fs::write(state, "torn").expect("writes");
    desk.json("train --resume run --steps 3 --json", 0);
    let names = |listed: &[Value]| -> Vec<(String, bool)> {
        let row = |row: &Value| {
            let path = Path::new(row["path"].as_str().expect("a path"));
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), row["abandoned"] == true)
        };
        listed.iter().map(row).collect()
    };
    let expected = [("step-2", false), ("step-3", false), ("step-4.abandoned", true)]
        .map(|(name, abandoned)| (name.to_string(), abandoned));
    assert_eq!(names(&desk.json("checkpoint ls run --json", 0)), expected);
    assert_eq!(names(&desk.json("checkpoint ls run/checkpoints --json", 0)), expected);
    assert!(desk.ok("checkpoint ls run").lines().last().expect("three").ends_with("  abandoned"));
    // It is damaged, and nothing to the run.
    assert_eq!(names(&desk.json("checkpoint verify run --json", 0)), expected[..2]);
    let one = desk.json("checkpoint ls run/checkpoints/step-4.abandoned --json", 0);
    assert_eq!(names(&one), expected[2..]);
}

#[test]
fn a_configuration_is_not_passed_over() {
    let desk = Desk::new();
    desk.json(&format!("train fashion-mnist-10k {SMALL} --steps 2 --out run"), 0);
    for line in ["train nowhere.toml --resume run", "train nowhere.toml --resume"] {
        desk.refused(line, 2, &["found nowhere.toml with --resume", "flags for what is to change"]);
    }
}

#[cfg(feature = "tokenizers")]
#[test]
fn a_run_meets_no_tokens_that_mean_something_else() {
    let desk = Desk::new();
    for (name, words) in [("a", "the cat sat on the mat "), ("b", "a dog dug in some mud, ")] {
        std::fs::write(desk.path(&format!("{name}.txt")), words.repeat(100)).expect("writes");
        desk.ok(&format!("tokenize {name}.txt --train-bpe 260 --val-share 0.2 --out {name}"));
    }
    let fast = "--device cpu --json";
    let gpt = "--model gpt-nano --context 16 --batch-size 2 --steps 2";
    desk.json(&format!("train a {gpt} --out run {fast}"), 0);
    desk.json(&format!("eval run --dataset a {fast}"), 0);
    let kept = std::fs::read(desk.path("run/tokenizer.json")).expect("a tokenizer");
    desk.refused(&format!("eval run --dataset b {fast}"), 3, &["found tokens of", "the run had"]);
    std::fs::remove_dir_all(desk.path("a")).expect("removes");
    std::fs::rename(desk.path("b"), desk.path("a")).expect("renames");
    let resume = format!("train --resume run --steps 3 {fast}");
    desk.refused(&resume, 3, &["found tokens of", "the run had"]);
    assert_eq!(std::fs::read(desk.path("run/tokenizer.json")).expect("a tokenizer"), kept);
}
