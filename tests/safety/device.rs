//! A device that is lost, hangs, or has no memory left.

use serde_json::Value;

use super::{Desk, losses};

/// What is said of a device in whose place another one was found.
const NOT_THERE: &str = "is not there any more, found ";

/// The twins, and the software adapter where there is one. With REQUIRE_GPU=1 it must be there.
fn devices() -> Vec<&'static str> {
    let software = inflight::gpu::adapters().iter().any(|a| a.name.contains("llvmpipe"));
    assert!(software || std::env::var("REQUIRE_GPU").is_err(), "there is no llvmpipe");
    if software { vec!["cpu", "llvmpipe"] } else { vec!["cpu"] }
}

#[test]
fn a_lost_device_is_opened_again_and_the_run_is_the_same() {
    let desk = Desk::new();
    for device in devices() {
        let flags = format!("--device {device} --steps 20 --checkpoint-every 4");
        let name = |what: &str| format!("{device}-{what}");
        let whole = desk.train(&name("whole"), &flags, "", 0);
        // Before the first checkpoint, after the second, and both one after the other.
        for faults in ["lost@2", "lost@11", "lost@3,lost@15", "hang@9"] {
            let out = name(&faults.replace(['@', ','], "-"));
            let again = desk.train(&out, &flags, faults, 0);
            assert_eq!(again.hash(), whole.hash(), "{device}: {faults}");
            assert_eq!(losses(&desk.path(&out)), losses(&desk.path(&name("whole"))), "{faults}");
            assert_eq!(again.all("restart").len(), faults.split(',').count(), "{device}: {faults}");
            assert!(desk.has_no_leftovers(&out), "{:?}", desk.checkpoints(&out));
        }
        let restart = desk.train(&name("told"), &flags, "lost@11", 0);
        let [restart] = restart.all("restart")[..] else { panic!("{restart:?}") };
        assert!(restart["step"] == 4 || restart["step"] == 8, "{restart}");
        assert!(restart["cause"].as_str().is_some_and(|cause| cause.contains("lost")), "{restart}");
    }
}

#[test]
fn a_device_that_stays_lost_ends_the_run_with_4_and_its_checkpoints() {
    let desk = Desk::new();
    for device in devices() {
        let (out, again) = (format!("{device}-out"), format!("{device}-whole"));
        let flags = format!("--device {device} --steps 12 --checkpoint-every 4");
        let ended = desk.train(&out, &flags, "lost@10x1000", 4);
        assert_eq!(ended.all("restart").len(), 3, "{ended:?}");
        assert!(ended.error().contains("lost"), "{}", ended.error());
        let resumed = desk.run(&format!("train --resume {out} --json"), "", 0);
        assert_eq!(resumed.hash(), desk.train(&again, &flags, "", 0).hash(), "{device}");
    }
}

#[test]
fn a_run_goes_on_on_its_own_device_or_not_at_all() {
    if !devices().contains(&"llvmpipe") {
        return;
    }
    let desk = Desk::new();
    let flags = "--device llvmpipe --steps 12 --checkpoint-every 4";
    let whole = desk.train("whole", flags, "", 0);
    // The first two times that it is opened again only the twins are there.
    let late = desk.train("late", flags, "lost@10,other@2x2", 0);
    let restarts = late.all("restart");
    let is_gone =
        |restart: &&Value| restart["cause"].as_str().is_some_and(|it| it.contains(NOT_THERE));
    let gone: Vec<bool> = restarts.iter().map(is_gone).collect();
    assert_eq!(gone, [false, true, true], "{restarts:?}");
    assert_eq!(late.hash(), whole.hash());
    assert_eq!(losses(&desk.path("late")), losses(&desk.path("whole")));
    // It never comes back: what happened first is the error, and its checkpoints go on where it is.
    let ended = desk.train("gone", flags, "lost@10,other@2x1000", 4);
    assert_eq!(ended.all("restart").len(), 3, "{ended:?}");
    assert!(ended.stderr.contains(NOT_THERE) && ended.error().contains("lost"), "{ended:?}");
    let resumed = desk.run("train --resume gone --json", "", 0);
    assert_eq!(resumed.hash(), whole.hash());
}

#[test]
fn a_device_that_hangs_is_given_up_after_a_while() {
    if !devices().contains(&"llvmpipe") {
        return;
    }
    let desk = Desk::new();
    let ended = desk.train("out", "--device llvmpipe --steps 8", "hang@3x1000", 4);
    assert!(ended.error().contains("the device hangs: a pass did not end within"), "{ended:?}");
}

#[test]
fn a_device_without_memory_says_how_much_and_what_to_lower() {
    if !devices().contains(&"llvmpipe") {
        return;
    }
    let desk = Desk::new();
    // Each buffer that is made before the run, until there are no more.
    for buffer in 1.. {
        let faults = format!("memory@{buffer}");
        let out = format!("out-{buffer}");
        let line =
            format!("train run.toml --out {out} --json --device llvmpipe --steps 2 --no-eval");
        let mut command = desk.command(&line);
        let output = command.env("INFLIGHT_FAULTS", &faults).output().expect("starts");
        let ended = super::Ended::of(output);
        if ended.code == Some(0) {
            assert!(buffer > 10, "only {buffer} buffers?");
            assert!(ended.all("restart").is_empty(), "one is made in the middle: {ended:?}");
            return;
        }
        assert_eq!(ended.code, Some(4), "{ended:?}");
        let (error, hint) = (ended.error(), "a smaller --batch-size, or fewer --slots");
        assert!(error.contains("bytes for") && error.contains("cannot be allocated"), "{error}");
        assert!(error.contains(hint), "{error}");
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    }
}
