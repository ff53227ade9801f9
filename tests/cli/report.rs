//! `inflight report`: a page about a run, whatever state its folder is in.

use std::path::Path;

use serde_json::Value;

use super::{Desk, SMALL};

/// A desk with a run of two epochs in `run`.
fn desk_with_run() -> Desk {
    let desk = Desk::new();
    desk.json(
        &format!(
            "train fashion-mnist-10k {SMALL} --epochs 2 --val-split 0.5 --out run \
             --transforms horizontal-flip"
        ),
        0,
    );
    desk
}

/// The page of `run`, and what it says is not there.
fn page(desk: &Desk) -> (String, Vec<String>) {
    let [event] = &desk.json("report run --json", 0)[..] else { panic!("one line") };
    let html = std::fs::read_to_string(desk.path("run/report.html")).expect("the page");
    assert_eq!(event["bytes"], html.len());
    let lacks = event["lacks"].as_array().expect("a list");
    (html, lacks.iter().map(|lack| lack.as_str().expect("words").to_string()).collect())
}

fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("is there");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("writes");
}

#[test]
fn the_page_shows_all_there_is_and_needs_nothing_else() {
    let desk = desk_with_run();
    let (html, lacks) = page(&desk);
    assert!(lacks.is_empty(), "{lacks:?}");
    for part in [
        ">Verdict<",
        ">Loss<",
        ">Accuracy<",
        ">Learning rate<",
        ">Norm of the gradients<",
        ">Throughput<",
        ">What was busy when<",
        ">Queues<",
        ">Who was busy<",
        ">What lay between them<",
        "A step took ",
        ">To the first step<",
        ">What was taken for what<",
        ">Worst mistakes<",
        ">Samples as the model saw them<",
        ">Configuration<",
        "Ankle boot",
        "To go faster",
        "batch_size = 50",
        "fashion-mnist-10k · mlp",
    ] {
        assert!(html.contains(part), "{part} is not on the page");
    }
    // Nothing is fetched, and nothing runs. The names of XML are no addresses.
    let addresses = html.replace("http://www.w3.org/2000/svg", "");
    for part in ["http:", "https:", "<script", "<link", "url("] {
        assert!(!addresses.contains(part), "{part}");
    }
    // 24 mistakes and 16 samples.
    assert_eq!(html.matches("src=\"data:image/png;base64,").count(), 40);
    assert!(html.len() < 1 << 20, "{}", html.len());
    desk.ok("report run --out again.html");
    assert!(
        html == std::fs::read_to_string(desk.path("again.html")).expect("the page"),
        "the same bytes"
    );
}

#[test]
fn answers_add_up_to_the_validation() {
    let desk = desk_with_run();
    let read = |name: &str| -> Value {
        let text = std::fs::read(desk.path("run").join(name)).expect("is there");
        serde_json::from_slice(&text).expect("JSON")
    };
    let (answers, summary) = (read("answers.json"), read("summary.json"));
    assert_eq!((&answers["samples"], &answers["classes"]), (&4000.into(), &10.into()));
    let counts = answers["counts"].as_array().expect("a list");
    let sum = |right: bool| -> u64 {
        let counts = counts.iter().filter(|count| !right || count[0] == count[1]);
        counts.map(|count| count[2].as_u64().expect("a count")).sum()
    };
    assert_eq!(sum(false), 4000);
    let accuracy = summary["val_accuracy"].as_f64().expect("a share");
    assert!((sum(true) as f64 / 4000.0 - accuracy).abs() < 1e-9, "{accuracy}");
    // The worst mistakes are the worst that the run's own evaluation makes.
    let worst = answers["worst"].as_array().expect("a list");
    assert_eq!(worst.len(), 24);
    let losses: Vec<f64> = worst.iter().map(|m| m["loss"].as_f64().expect("a loss")).collect();
    assert!(losses.is_sorted_by(|a, b| a >= b), "{losses:?}");
}

#[test]
fn a_run_that_is_cut_off_has_a_page_that_says_so() {
    let desk = desk_with_run();
    let run = desk.path("run");
    for name in ["summary.json", "verdict.json", "answers.json", "samples.json", "timeline.jsonl"] {
        std::fs::remove_file(run.join(name)).expect("is there");
    }
    damage(&run.join("metrics.jsonl"), |bytes| bytes.truncate(bytes.len() - 20));
    let (html, lacks) = page(&desk);
    assert!(html.contains("no end on record") && html.contains(">Loss<"), "{lacks:?}");
    assert!(html.contains("verdict.json: is not there"), "{lacks:?}");
    assert_eq!(lacks.len(), 5, "{lacks:?}");
}

#[test]
fn the_end_of_an_earlier_part_of_a_run_is_not_its_end() {
    let desk = desk_with_run();
    let metrics = desk.path("run/metrics.jsonl");
    let text = std::fs::read_to_string(&metrics).expect("is there");
    let lines: Vec<&str> = text.lines().collect();
    let next = lines[159].replacen("\"step\":160", "\"step\":161", 1);
    assert!(next.contains("\"step\":161"), "{next}");
    // As while it goes on with more steps, or goes on from an older checkpoint.
    for (lines, last) in [([&lines[..], &[&next[..]]].concat(), 161), (lines[..90].to_vec(), 90)] {
        std::fs::write(&metrics, lines.join("\n") + "\n").expect("writes");
        let (html, lacks) = page(&desk);
        assert!(html.contains("no end on record"), "{lacks:?}");
        let why = format!("is of step 160, the last on record is {last}");
        assert_eq!(lacks, [format!("summary.json: {why}"), format!("verdict.json: {why}")]);
    }
    std::fs::write(&metrics, &text).expect("writes");
    let (html, lacks) = page(&desk);
    assert!(lacks.is_empty() && html.contains("finished"), "{lacks:?}");
}

#[test]
fn damaged_files_are_named_and_the_rest_is_shown() {
    let desk = desk_with_run();
    let run = desk.path("run");
    damage(&run.join("metrics.jsonl"), |bytes| bytes[3] = b'\n');
    damage(&run.join("epochs.jsonl"), |bytes| bytes.insert(0, b'{'));
    damage(&run.join("answers.json"), |bytes| {
        let text = String::from_utf8(bytes.clone()).expect("UTF-8");
        *bytes = text.replacen("4000", "4001", 1).into_bytes();
    });
    damage(&run.join("samples.png"), |bytes| bytes.truncate(100));
    damage(&run.join("verdict.json"), |bytes| bytes.truncate(30));
    damage(&run.join("config.toml"), |bytes| bytes.extend(b"\nnonsense"));
    std::fs::write(run.join("timeline.jsonl"), vec![b'x'; 200_000]).expect("writes");
    let (html, lacks) = page(&desk);
    let all = lacks.join("\n");
    for part in [
        "metrics.jsonl: 2 of 161 lines cannot be read, the first is line 1",
        "epochs.jsonl: 1 of 2 lines cannot be read",
        "answers.json: its numbers do not fit together",
        "samples.png: is damaged",
        "verdict.json: is damaged",
        "config.toml: ",
        "timeline.jsonl: has no pulse",
    ] {
        assert!(all.contains(part), "{part} is not in\n{all}");
    }
    assert!(html.contains(">Loss<") && html.contains("finished"));
}

#[test]
fn names_from_data_stay_text() {
    let desk = desk_with_run();
    let run = desk.path("run");
    damage(&run.join("inputs.json"), |bytes| {
        let text = String::from_utf8(bytes.clone()).expect("UTF-8");
        *bytes = text.replacen("Ankle boot", "<script>alert(1)</script>", 1).into_bytes();
    });
    let (html, _) = page(&desk);
    assert!(html.contains("&lt;script&gt;alert(1)") && !html.contains("<script"));
}

#[test]
fn what_is_no_run_is_refused() {
    let desk = Desk::new();
    desk.refused("report", 2, &["found no run of anything"]);
    desk.refused("report nowhere", 2, &["config: nowhere: found no such folder"]);
    std::fs::create_dir(desk.path("empty")).expect("a folder");
    desk.refused("report empty", 2, &["config: empty: found none of config.toml, metrics.jsonl"]);
    std::fs::write(desk.path("file"), "").expect("writes");
    desk.refused("report file", 2, &["found a file, expected the folder of a run"]);
}
