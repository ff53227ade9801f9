//! What tells of the machine: doctor, stalls, the files of benchmarks, verdicts that are tried; and what is generated from
//! the flags.

use std::io::Seek;

use inflight::bench::results::{Program, Results, SCHEMA, SCHEMA_VERSION, Workload};
use inflight::bench::stats::Estimate;

use super::*;

/// Results of a machine, all times longer by `slowdown`.
fn results(slowdown: f64, shift: f64) -> Results {
    let workload = |i: u64| {
        let each_s: Vec<f64> = (0..8)
            .map(|round| {
                slowdown * 1e-3 * (i + 1) as f64 * (1.0 + 0.002 * ((round as f64 + shift) % 5.0))
            })
            .collect();
        let part = ["kernels", "train", "pipeline"][i as usize % 3];
        let samples = if part == "kernels" { 0 } else { 128 };
        let (id, time_s) = (format!("{part}/{i}"), Estimate::of(&each_s));
        Workload { id, samples, time_s, each_s, share: None }
    };
    Results {
        schema: SCHEMA.into(),
        schema_version: SCHEMA_VERSION,
        suite_version: 1,
        rounds: 8,
        program: Program {
            version: "0.1.0".into(),
            profile: "release".into(),
            build: String::new(),
            planted_slowdown: 1.0,
        },
        workloads: (0..6).map(workload).collect(),
        ..Default::default()
    }
}

#[test]
fn results_are_compared_shown_and_judged() {
    let desk = Desk::new();
    results(1.0, 0.0).save(&desk.path("a.json")).expect("saves");
    results(1.0, 0.3).save(&desk.path("again.json")).expect("saves");
    results(1.1, 0.3).save(&desk.path("slow.json")).expect("saves");
    let same = desk.ok("bench compare a.json again.json");
    assert!(same.contains("no significant difference") && !same.contains("slower\n"), "{same}");
    let slow = desk.ok("bench compare a.json slow.json");
    assert!(slow.contains("6 of 6 workloads differ significantly"), "{slow}");
    let wide = slow.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "{slow}");
    let both = desk.json("bench compare a.json again.json slow.json --json", 0);
    assert_eq!(both[0]["verdict"], "same");
    assert_eq!(both[1]["verdict"], "slower");
    let ratio = both[1]["overall"]["median"].as_f64().expect("a number");
    assert!((ratio - 1.1).abs() < 0.005, "{ratio}");
    desk.ok("bench report a.json slow.json --out page.html");
    let page = std::fs::read_to_string(desk.path("page.html")).expect("a page");
    assert!(
        page.contains("train/1") && page.contains("<svg") && !page.contains("http-equiv=\"refresh")
    );
    assert!(!page.contains("<script") && !page.contains("src=\"http"), "it needs no network");
    desk.run("bench submit a.json", 0);
    desk.run("bench compare a.json", 2);
}

#[test]
fn files_that_are_no_results_are_refused() {
    let desk = Desk::new();
    results(1.0, 0.0).save(&desk.path("a.json")).expect("saves");
    let write = |name: &str, text: &str| std::fs::write(desk.path(name), text).expect("writes");
    write("empty.json", "");
    write("other.json", "{\"event\":\"done\"}");
    desk.refused("bench compare a.json empty.json", 2, &["empty.json: is no JSON"]);
    desk.refused("bench compare a.json other.json", 2, &["other.json: found schema null"]);
    let newer = std::fs::read_to_string(desk.path("a.json")).expect("text");
    write("newer.json", &newer.replace("\"schema_version\": 1", "\"schema_version\": 7"));
    desk.refused(
        "bench compare a.json newer.json",
        2,
        &["found version 7 of the schema, expected 1"],
    );
    write("suite.json", &newer.replace("\"suite_version\": 1", "\"suite_version\": 2"));
    desk.refused("bench compare a.json suite.json", 2, &["versions 1 and 2 of the suite"]);
    write("debug.json", &newer.replace("\"release\"", "\"debug\""));
    desk.refused("bench submit debug.json", 2, &["not fit for a public table", "debug build"]);
    desk.refused("bench --out results.txt", 2, &["--out: found results.txt, expected .json"]);
    desk.refused("bench kernels --out a.json", 2, &["--out or --only with a part"]);
}

#[test]
fn results_without_a_place_are_not_measured() {
    let desk = Desk::new();
    std::fs::write(desk.path("file"), "").expect("writes");
    std::fs::create_dir(desk.path("folder.json")).expect("a folder");
    // Without such a device nothing would be measured, were it not refused before.
    let suite = "bench --device nosuch --out a.json --out";
    desk.refused(&format!("{suite} file/b.json"), 6, &["file: cannot be created"]);
    desk.refused(&format!("{suite} folder.json"), 6, &["folder.json: is a folder"]);
    desk.run(&format!("{suite} new/b.json"), 4);
    let mut left: Vec<_> = std::fs::read_dir(desk.path("")).expect("a folder").flatten().collect();
    left.extend(std::fs::read_dir(desk.path("new")).expect("a folder").flatten());
    let mut left: Vec<_> = left.iter().map(std::fs::DirEntry::file_name).collect();
    left.sort();
    assert_eq!(left, ["file", "folder.json", "new"], "finding out leaves nothing");
}

#[test]
fn the_suite_refuses_what_it_would_not_use() {
    let desk = Desk::new();
    // Without such a device nothing would be measured, were it not refused before.
    let suite = "bench --device nosuch --out a.json";
    for (flags, name) in [
        ("--precision f16", "--precision"),
        ("-m mlp", "--model"),
        ("-b 128", "--batch-size"),
        ("--quick --tune off", "--tune"),
        ("--dataset photos", "--dataset"),
        ("--only kernels --image-size 32", "--image-size"),
        ("--epochs 3", "--epochs"),
    ] {
        let told = format!("config: {name}: found with the suite");
        desk.refused(&format!("{suite} {flags}"), 2, &[&told, "expected with a part alone"]);
    }
    desk.run(&format!("{suite} --quick --only kernels,train --json --log-format json"), 4);
}

#[test]
fn preparation_is_not_timed_on_a_stream_of_which_nothing_is_read() {
    let desk = Desk::new();
    let refused = &["--dataset: found a stream", "expected data of a known length"];
    desk.refused("bench pipeline --dataset - --classes 2", 2, refused);
    desk.refused("bench pipeline --dataset redis://127.0.0.1:1/queue --classes 2", 2, refused);
    std::fs::write(desk.path("lines"), "{\"input\":[1,2],\"label\":0}\n").expect("writes");
    let mut input = std::fs::File::open(desk.path("lines")).expect("opens");
    let mut command = desk.command("bench pipeline --dataset - --classes 2");
    let output = command.stdin(input.try_clone().expect("a copy")).output().expect("starts");
    assert_eq!(output.status.code(), Some(2));
    // Both have the place where the file is read in common.
    assert_eq!(input.stream_position().expect("a place"), 0);
}

#[test]
fn the_doctor_looks_at_everything() {
    let desk = Desk::new();
    let found = desk.json("doctor --device cpu --json", 0);
    let of = |about: &str| found.iter().filter(|f| f["about"] == about).collect::<Vec<_>>();
    for about in ["adapters", "device", "cores", "memory", "open files", "data", "runs", "cache"] {
        assert!(!of(about).is_empty(), "{about}: {found:#?}");
    }
    assert_eq!(of("device")[0]["level"], "good", "{found:#?}");
    let text = desk.ok("doctor --device cpu");
    assert!(text.contains("as the processor does"), "{text}");
    let (text, error) = desk.run("doctor --device nosuch --data nowhere", 4);
    assert!(text.contains("FIX  device") && text.contains("FIX  data"), "{text}");
    assert!(error.contains("found 2 of the above that must be fixed"), "{error}");
}

#[test]
fn stalls_are_told_with_their_intervals() {
    let desk = Desk::new();
    let line = "stalls fashion-mnist-10k --model mlp --batch-size 50 --device cpu --seconds 0.05";
    let [report] = &desk.json(&format!("{line} --json"), 0)[..] else { panic!("one report") };
    assert_eq!(report["rounds"], 5);
    for row in report["steps"].as_array().expect("rows") {
        assert_eq!(row["each_s"].as_array().map(Vec::len), Some(5), "{row}");
        let number = |key: &str| row[key].as_f64().expect("a number");
        assert!(number("low") <= number("median") && number("median") <= number("high"), "{row}");
        assert!(number("low") > 0.0, "{row}");
    }
    let names = |key: &str| -> Vec<&str> {
        report[key]
            .as_array()
            .expect("rows")
            .iter()
            .filter_map(|row| row["name"].as_str())
            .collect()
    };
    assert_eq!(names("stalls"), ["upload", "prepare", "contention"], "it lies in memory");
    let text = desk.ok(line);
    let wide = text.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "{text}");
    desk.refused(&format!("{line} --repeats 3"), 2, &["--repeats: found 3, expected at least 5"]);
}

#[test]
fn a_verdict_can_be_verified() {
    let desk = Desk::new();
    let line =
        format!("train fashion-mnist-10k {SMALL} --steps 30 --sync --slots 3 --no-eval --verify");
    let all = desk.json(&line, 0);
    let done = all.last().expect("events");
    assert_eq!(done["event"], "done", "it comes last");
    assert_eq!(events(&all, "done").len(), 1);
    let verdict = &done["verdict"];
    // Which bottleneck it is depends on the machine; what can be tried is tried.
    match verdict["change"]["flag"].as_str().expect("a flag") {
        "--sync=false" | "--workers" | "--slots" | "--batch-size" => {
            let verified = &verdict["verified"];
            assert!(verified["measured"].as_f64().is_some_and(|x| x > 0.0), "{verdict:#}");
            assert!(verified["steps"].as_u64().is_some_and(|n| n >= 3), "{verdict:#}");
        }
        _ => assert!(verdict["verified"].is_null(), "{verdict:#}"),
    }
    let dir = done["run_dir"].as_str().expect("a folder");
    let kept = std::fs::read_to_string(desk.path(dir).join("verdict.json")).expect("a verdict");
    assert_eq!(&serde_json::from_str::<Value>(&kept).expect("JSON"), verdict);
}

#[test]
fn completions_and_manual_pages_know_all_commands() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = desk.ok(&format!("completions {shell}"));
        for word in ["train", "stalls", "doctor", "batch-size"] {
            assert!(script.contains(word), "{word} is not in the completions of {shell}");
        }
    }
    desk.run("completions csh", 2);
    assert!(desk.ok("man").contains(".TH inflight 1"));
    desk.run("man --out pages", 0);
    let page = std::fs::read_to_string(desk.path("pages/inflight-train.1")).expect("a page");
    assert!(page.contains("batch\\-size") && page.contains("Samples a batch"), "{page}");
    assert!(desk.path("pages/inflight-bench-compare.1").exists());
}
