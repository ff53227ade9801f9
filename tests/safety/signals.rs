//! Signals: the first saves and ends with 75, the second ends at once. A run that nobody listens to any more saves as well.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Stdio};

use super::{Desk, losses};

/// Sends a signal to a child that was not waited for yet.
pub(super) fn send(child: &Child, signal: libc::c_int) {
    // SAFETY: `kill` only sends a signal.
    let sent = unsafe { libc::kill(child.id() as libc::pid_t, signal) };
    assert_eq!(sent, 0, "the child is there");
}

fn start(desk: &Desk, line: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    start_with(desk, line, libc::SIG_DFL)
}

/// Starts it with something to do about SIGHUP, whatever these tests were started with.
fn start_with(
    desk: &Desk,
    line: &str,
    hangup: libc::sighandler_t,
) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = desk.command(line);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let set = move || {
        // SAFETY: it is an action of the system's own, no handler.
        unsafe { libc::signal(libc::SIGHUP, hangup) };
        Ok(())
    };
    // SAFETY: between fork and exec `signal` may be called.
    unsafe { command.pre_exec(set) };
    let mut child = command.spawn().expect("starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    (child, lines)
}

#[test]
fn each_signal_saves_and_the_run_goes_on_from_there() {
    let desk = Desk::new();
    let whole = desk.train("whole", "--steps 3000 --no-eval", "", 0);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let out = format!("out-{signal}");
        let line = format!("train run.toml --out {out} --json --steps 3000 --no-eval");
        let (mut child, mut lines) = start(&desk, &line);
        lines.nth(40).expect("an event").expect("a line");
        send(&child, signal);
        let last = lines.last().expect("events").expect("a line");
        assert_eq!(child.wait().expect("ends").code(), Some(75), "{signal}: {last}");
        let stopped: serde_json::Value = serde_json::from_str(&last).expect("JSON");
        assert_eq!((&stopped["event"], &stopped["stopped"]), (&"done".into(), &true.into()));
        let resumed = desk.run(&format!("train --resume {out} --json"), "", 0);
        assert_eq!(resumed.hash(), whole.hash(), "{signal}");
        assert_eq!(losses(&desk.path(&out)), losses(&desk.path("whole")), "{signal}");
    }
}

#[test]
fn a_run_that_is_to_outlive_its_terminal_does() {
    let desk = Desk::new();
    let whole = desk.train("whole", "--steps 3000 --no-eval", "", 0);
    let line = "train run.toml --out out --json --steps 3000 --no-eval";
    let (mut child, mut lines) = start_with(&desk, line, libc::SIG_IGN);
    lines.nth(40).expect("an event").expect("a line");
    send(&child, libc::SIGHUP);
    let last = lines.last().expect("events").expect("a line");
    assert_eq!(child.wait().expect("ends").code(), Some(0), "{last}");
    let done: serde_json::Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!(done["parameter_hash"].as_str(), Some(whole.hash()));
}

/// So ends `inflight train --json | jq` at Ctrl-C, which reaches both.
#[test]
fn a_run_whose_events_nobody_reads_any_more_saves_and_goes_on_from_there() {
    let desk = Desk::new();
    let whole = desk.train("whole", "--steps 3000 --no-eval", "", 0);
    let line = "train run.toml --out out --json --steps 3000 --no-eval";
    let (mut child, mut lines) = start(&desk, line);
    lines.nth(40).expect("an event").expect("a line");
    drop(lines);
    assert_eq!(child.wait().expect("ends").code(), Some(75));
    let resumed = desk.run("train --resume out --json", "", 0);
    assert_eq!(resumed.hash(), whole.hash());
    assert_eq!(losses(&desk.path("out")), losses(&desk.path("whole")));
}

#[test]
fn a_run_that_goes_on_cannot_be_resumed_beside_itself() {
    let desk = Desk::new();
    let flags = "--steps 3000 --checkpoint-every 20 --no-eval";
    let whole = desk.train("whole", flags, "", 0);
    let (mut child, mut lines) = start(&desk, &format!("train run.toml --out out --json {flags}"));
    let saved = |line: &std::io::Result<String>| {
        line.as_ref().expect("a line").contains("\"event\":\"checkpoint\"")
    };
    let _ = lines.find(saved).expect("a checkpoint");
    // Who does not read its events holds it up, and it cannot end meanwhile.
    // Before it looks for a device, since before it looks for a checkpoint: the first one may save another meanwhile.
    let second = desk.run("train --resume out --json --device no-such-device", "", 2);
    assert!(second.stderr.contains("is the folder of a run that is still going on"), "{second:?}");
    let last = lines.last().expect("events").expect("a line");
    assert_eq!(child.wait().expect("ends").code(), Some(0), "{last}");
    let done: serde_json::Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!(done["parameter_hash"].as_str(), Some(whole.hash()));
    assert_eq!(losses(&desk.path("out")), losses(&desk.path("whole")));
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_whose_events_find_no_room_says_so_and_stops() {
    let desk = Desk::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
    let mut command = desk.command("train run.toml --out out --json --steps 3000 --no-eval");
    let out = command.stdout(full).stderr(Stdio::piped()).output().expect("starts");
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(75), "{told}");
    assert!(told.contains("stdout: No space left on device"), "{told}");
}

#[test]
fn a_second_signal_ends_at_once_and_tears_no_file() {
    let desk = Desk::new();
    // Saves all the time, so that the second signal meets one.
    let whole = desk.train("whole", "--steps 400 --checkpoint-every 1 --no-eval", "", 0);
    let mut at_once = 0;
    for round in 0..4 {
        let out = format!("out-{round}");
        let line =
            format!("train run.toml --out {out} --json --steps 400 --checkpoint-every 1 --no-eval");
        let (mut child, mut lines) = start(&desk, &line);
        lines.nth(20).expect("an event").expect("a line");
        send(&child, libc::SIGINT);
        send(&child, libc::SIGINT);
        // Two of one kind that meet may be one to the system.
        send(&child, libc::SIGTERM);
        let _ = lines.count();
        let code = child.wait().expect("ends").code();
        assert!(matches!(code, Some(130 | 75)), "{code:?}");
        at_once += usize::from(code == Some(130));
        desk.run(&format!("checkpoint verify {out}"), "", 0);
        let resumed = desk.run(&format!("train --resume {out} --json"), "", 0);
        assert_eq!(resumed.hash(), whole.hash(), "round {round}");
    }
    assert!(at_once > 0, "no second signal came before the first one's end");
}
