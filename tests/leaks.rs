//! When a pipeline is dropped, none of its threads is left. A test of its own process, since it counts them.
#![cfg(target_os = "linux")]

#[path = "flow/bed.rs"]
#[allow(dead_code)]
mod bed;

use std::sync::Arc;
use std::time::Instant;

use bed::{Hooked, PATIENCE, agenda, preparation, receive, ring};
use inflight::pipeline::Pipeline;

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread that ended meanwhile has no name.
        std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
    };
    let mut names: Vec<String> = tasks.map(name).map(|name| name.trim().to_owned()).collect();
    names.sort();
    names
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits for what the system shows a little after it is so: the names of new threads, and the end of joined ones.
fn until(mut holds: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if holds() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn no_thread_and_no_file_is_left() {
    let before = (threads(), open_files());
    for taken in [0, 1, 7] {
        let preparation = preparation(Arc::new(Hooked::new(1000)), 8, 3);
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let pipeline = Pipeline::start(
            ring(&preparation, 3),
            agenda(1000, 8, 100).into_iter(),
            preparation,
            move |ends| {
                for _ in 0..taken {
                    let filled = receive(&ends.full).unwrap().unwrap();
                    let _ = ends.empty.send(filled.slot);
                }
                let expected = ["prepare", "prepare-0", "prepare-1", "prepare-2", "device"];
                let all = || expected.iter().all(|name| threads().iter().any(|t| t == name));
                let _ = sender.send(until(all));
            },
        );
        assert!(receiver.recv().unwrap(), "all threads have their names");
        drop(pipeline);
        let gone = until(|| (threads(), open_files()) == before);
        assert!(gone, "left after {taken} batches: {:?}", threads());
    }
}
