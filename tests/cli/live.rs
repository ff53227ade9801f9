//! A run that is looked at while it goes on: logs of JSON, a dashboard without a terminal, event files, traces.

use serde_json::Value;

use super::Desk;

const RUN: &str = "train fashion-mnist-10k --model mlp --batch-size 50 --lr 0.001 --device cpu --val-split 0.5 --epochs 1";

#[test]
fn a_log_of_json_holds_nothing_else() {
    let desk = Desk::new();
    let (stdout, stderr) = desk.run(&format!("{RUN} --out run --log-format json"), 0);
    assert_eq!(stdout, "");
    let lines: Vec<Value> =
        stderr.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert!(lines.iter().all(|line| line["time"].as_f64().is_some_and(|time| time > 1.7e9)));
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!(
        [of("step"), of("pulse"), of("epoch"), of("checkpoint"), of("done")],
        [0, 0, 1, 1, 1]
    );
    assert!(lines.iter().any(|line| line["message"] == "saved in run"));
    let (_, stderr) = desk.run("--log-format json train nowhere --device cpu", 3);
    let error: Value = serde_json::from_str(stderr.lines().last().expect("a line")).expect("JSON");
    assert_eq!(error["level"], "error");
    assert!(
        error["message"].as_str().is_some_and(|text| text.starts_with("source: nowhere")),
        "{error}"
    );
}

#[test]
fn event_files_and_a_trace_lie_in_the_run() {
    let desk = Desk::new();
    desk.run(&format!("{RUN} --out run --tensorboard --trace=3"), 0);
    let files = std::fs::read_dir(desk.path("run/tensorboard")).expect("a folder");
    let files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    assert!(
        file.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("events.out.tfevents."))
    );
    // 80 steps with three scalars of some 40 bytes each, and two sheets of pictures.
    assert!(std::fs::metadata(file).expect("is there").len() > 20_000);
    let trace = std::fs::read(desk.path("run/trace.json")).expect("a trace");
    let events: Vec<Value> = serde_json::from_slice(&trace).expect("an array of JSON");
    assert_eq!(events.iter().filter(|event| event["name"] == "step 3").count(), 1);
    assert_eq!(events.iter().filter(|event| event["name"] == "step 4").count(), 0);
}

#[cfg(feature = "tui")]
#[test]
fn without_a_terminal_the_dashboard_is_lines() {
    let desk = Desk::new();
    let (stdout, stderr) = desk.run(&format!("{RUN} --out run --tui"), 0);
    assert_eq!(stdout, "");
    assert!(
        stderr.contains("stderr is no terminal") && stderr.contains("epoch 1/1: train loss"),
        "{stderr}"
    );
    assert!(!stderr.contains('\u{1b}'), "{stderr}");
}
