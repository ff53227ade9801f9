//! The real program, killed at any moment: what it saved is whole, and the run that goes on from it is the same run.
//!
//! `INFLIGHT_CRASHES=200 cargo test --all-features --test safety crash` kills it that often; the ordinary test 20 times.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use inflight::rng::Rng;
use inflight::train::checkpoint;

use super::signals::send;
use super::{Desk, losses};

/// A save every step, and about this many steps between two kills.
const STEPS_A_LIFE: u64 = 6;

fn crashes() -> u64 {
    std::env::var("INFLIGHT_CRASHES").map_or(20, |text| text.parse().expect("a number"))
}

/// The step of the newest checkpoint that is whole, as the library finds it; 0 without any.
#[track_caller]
fn newest(desk: &Desk, run: &str) -> u64 {
    match checkpoint::any(desk.path(run)).expect("readable") {
        true => {
            super::assert_whole(&desk.path(run), run);
            let found = checkpoint::latest(desk.path(run)).expect("the previous or the new one");
            found.checkpoint.progress.step
        }
        false => 0,
    }
}

#[test]
fn killed_at_random_moments_of_saving_it_is_the_same_run() {
    let desk = Desk::new();
    let lives = crashes();
    let steps = lives * STEPS_A_LIFE * 2;
    let flags = format!("--checkpoint-every 1 --steps {steps} --keep 3");
    let whole = desk.train("whole", &flags, "", 0);
    let mut line = format!("train run.toml --out out --json {flags}");
    let (mut killed, mut before) = (0, 0);
    for life in 0..lives {
        let mut rng = Rng::keyed(&[life, 8]);
        let mut command = desk.command(&line);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        // Until some checkpoints are there, and then somewhere in those after them.
        let mut wanted = 1 + rng.below(STEPS_A_LIFE);
        while wanted > 0
            && let Some(Ok(event)) = lines.next()
        {
            wanted -= u64::from(event.contains("\"event\":\"checkpoint\""));
        }
        std::thread::sleep(Duration::from_micros(rng.below(3000)));
        send(&child, libc::SIGKILL);
        let status = child.wait().expect("ends");
        killed += u64::from(status.code().is_none());
        let now = newest(&desk, "out");
        assert!(now >= before, "life {life}: from step {before} back to {now}");
        before = now;
        line = "train --resume out --json".into();
    }
    assert!(killed * 10 >= lives * 9, "only {killed} of {lives} were killed before they ended");
    let rest = desk.run(&line, "", 0);
    assert_eq!(rest.hash(), whole.hash());
    assert_eq!(losses(&desk.path("out")), losses(&desk.path("whole")));
    assert!(desk.has_no_leftovers("out"), "{:?}", desk.checkpoints("out"));
}

/// As above, but at every single operation on files, one after the other, in the middle of writing.
#[cfg(feature = "faults")]
#[test]
fn killed_at_every_operation_on_a_file_it_is_the_same_run() {
    let desk = Desk::new();
    let flags = "--checkpoint-every 2 --steps 6";
    let whole = desk.train("whole", flags, "", 0);
    let mut resumable = 0;
    for operation in 1.. {
        let out = format!("out-{operation}");
        let line = format!("train run.toml --out {out} --json {flags}");
        let mut command = desk.command(&line);
        command.env("INFLIGHT_FAULTS", format!("kill@{operation}"));
        let status = command.output().expect("starts").status;
        if status.success() {
            assert!(operation > 60, "there are more than {operation} operations");
            break;
        }
        assert_eq!(status.code(), None, "killed");
        newest(&desk, &out);
        // Before its configuration is saved there is no run to go on with.
        if desk.path(&out).join("config.toml").exists() {
            resumable += 1;
            let rest = desk.run(&format!("train --resume {out} --json"), "", 0);
            assert_eq!(rest.hash(), whole.hash(), "operation {operation}");
            assert_eq!(losses(&desk.path(&out)), losses(&desk.path("whole")), "{operation}");
            assert!(desk.has_no_leftovers(&out), "{:?}", desk.checkpoints(&out));
        }
        // The first operations make its folder.
        if desk.path(&out).exists() {
            std::fs::remove_dir_all(desk.path(&out)).expect("removable");
        }
    }
    assert!(resumable > 50, "only {resumable} were resumed");
}
