//! When a pipeline is dropped, none of its threads is left. A test of its own process, since it counts them.
#![cfg(target_os = "linux")]

#[path = "flow/bed.rs"]
#[allow(dead_code)]
mod bed;

use std::sync::Arc;
use std::time::Instant;

use bed::{Hooked, PATIENCE, agenda, preparation, receive, ring};
use inflight::pipeline::{Pipeline, Preparation};
use inflight::source::cache::CacheKind;
use inflight::source::supply::Supply;

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

/// With nothing in between, and with readers and a cache on disk.
fn supplies(dir: &std::path::Path) -> [Supply; 2] {
    let data = dir.join("data");
    std::fs::write(&data, "data").unwrap();
    let full = Supply {
        readers: Some(2),
        cache: CacheKind::Disk,
        cache_dir: Some(dir.join("decoded")),
        origin: Some((data, String::new())),
        ..Supply::default()
    };
    [Supply::default(), full]
}

#[test]
fn no_thread_and_no_file_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let before = (threads(), open_files());
    for (taken, supply) in [0, 1, 7].into_iter().flat_map(|n| supplies(dir.path()).map(|s| (n, s)))
    {
        let mut expected = vec!["prepare", "prepare-0", "prepare-1", "prepare-2", "device"];
        if supply.readers.is_some() {
            expected.extend(["reader-0", "reader-1"]);
        }
        let source = Arc::new(Hooked::new(1000).waiting());
        let supply = Supply { readers: supply.readers.or(Some(0)), ..supply };
        let preparation = Preparation { supply, ..preparation(source, 8, 3) };
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
