//! When a pipeline is dropped, none of its threads is left, and no buffer; and a process that trains for long does not
//! grow. Tests of their own process, since they count what it has; one at a time.
//!
//! `INFLIGHT_SHUTDOWNS=1000` ends pipelines that often under each depth of the queue. `INFLIGHT_SOAK_S=3600 cargo test
//! --all-features --test leaks -- --ignored --nocapture` trains for an hour and tells what the process has meanwhile.
#![cfg(target_os = "linux")]

#[path = "flow/bed.rs"]
#[allow(dead_code)]
mod bed;

#[path = "common/mod.rs"]
mod common;

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bed::{Hooked, PATIENCE, agenda, preparation, receive, ring};
use inflight::batch::Slot;
use inflight::pipeline::{Pipeline, Preparation};
use inflight::rng::Rng;
use inflight::source::cache::CacheKind;
use inflight::source::supply::Supply;
use inflight::{RunConfig, Trainer};

/// Held by the test that counts.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The names of this process's threads.
fn all_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread that ended meanwhile has no name.
        std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
    };
    let mut names: Vec<String> = tasks.map(name).map(|name| name.trim().to_owned()).collect();
    names.sort();
    names
}

/// Those of a pipeline; others come and go with tests that wait for their turn.
fn threads() -> Vec<String> {
    let ours = ["prepare", "reader-", "device", "checkpoint"];
    let mut names = all_threads();
    names.retain(|name| ours.iter().any(|ours| name.starts_with(ours)));
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
    let _alone = alone();
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

/// A ring whose slots are counted by the copies of `alive`.
fn counted_ring(preparation: &Preparation, slots: usize, alive: &Arc<()>) -> Vec<Slot> {
    let slot = |index| {
        let mut memory = vec![0u128; preparation.layout.slot_bytes.div_ceil(16)];
        let ptr = NonNull::from(memory.as_mut_slice()).cast();
        let owner = Box::new((memory, alive.clone()));
        // SAFETY: the memory belongs to the owner, which goes with the slot, and nobody else has it.
        unsafe { Slot::from_raw(index, ptr, preparation.layout.slot_bytes, owner) }
    };
    (0..slots).map(slot).collect()
}

/// A moment that passes in some tens of microseconds, or none.
fn moment(rng: &mut Rng) {
    let began = Instant::now();
    let length =
        Duration::from_micros([0, 0, rng.below(30), rng.below(300)][rng.below(4) as usize]);
    while began.elapsed() < length {
        std::thread::yield_now();
    }
}

/// Starts a pipeline and ends it at a moment that `seed` draws: its consumer goes away, and it is dropped.
fn end_at_random(slots: usize, seed: u64) {
    let mut rng = Rng::keyed(&[slots as u64, seed]);
    let workers = 1 + (seed % 4) as usize;
    let alive = Arc::new(());
    let pause = rng.below(40);
    let source = Hooked::new(500).on_read(move |index| {
        if pause > 20 && index.is_multiple_of(7) {
            std::thread::sleep(Duration::from_micros(pause));
        }
        if pause == 1 && index == 60 {
            return Err(inflight::Error::data("sample 60", "is bad"));
        }
        assert!(pause != 2 || index != 60, "a panic in the middle");
        Ok(())
    });
    let source = Arc::new(if rng.below(2) == 0 { source.waiting() } else { source });
    let readers = Some(rng.below(3) as usize);
    let supply = Supply { readers, ..Supply::default() };
    let preparation = Preparation { supply, ..preparation(source.clone(), 8, workers) };
    let ring = counted_ring(&preparation, slots, &alive);
    let (taken, mut device_rng) = (rng.below(30), rng.clone());
    let pipeline =
        Pipeline::start(ring, agenda(500, 8, 100).into_iter(), preparation, move |ends| {
            for _ in 0..taken {
                let Ok(Ok(filled)) = receive(&ends.full) else { return };
                moment(&mut device_rng);
                let _ = ends.empty.send(filled.slot);
            }
            moment(&mut device_rng);
        })
        .expect("starts");
    moment(&mut rng);
    drop(pipeline);
    assert_eq!(Arc::strong_count(&alive), 1, "{slots} slots, seed {seed}: a slot is left");
    assert_eq!(Arc::strong_count(&source), 1, "{slots} slots, seed {seed}: the source is held");
}

#[test]
fn ended_at_any_moment_under_any_depth_nothing_is_left() {
    let _alone = alone();
    let times = std::env::var("INFLIGHT_SHUTDOWNS").map_or(40, |text| text.parse().unwrap());
    let before = (threads(), open_files());
    for slots in [1, 2, 3, 4, 6] {
        for seed in 0..times {
            end_at_random(slots, seed);
        }
        let gone = until(|| (threads(), open_files()) == before);
        assert!(gone, "left after {slots} slots: {:?}", threads());
    }
}

/// Bytes of memory that the process has now.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    4096 * text.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
}

/// Trains over and over, on every device, and tells what the process has; it must not have more at the end than after
/// a twelfth of the time (five minutes of an hour), but for a little that allocators keep.
#[test]
#[ignore = "takes as long as INFLIGHT_SOAK_S says, ten minutes without it"]
fn a_process_that_trains_for_long_does_not_grow() {
    let _alone = alone();
    let seconds = std::env::var("INFLIGHT_SOAK_S").map_or(600, |text| text.parse().unwrap());
    let began = Instant::now();
    let (mut first, mut looks, mut runs, mut allocated) = (None, 1, 0u64, Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) {
        for device in common::devices() {
            let dir = tempfile::tempdir().unwrap();
            let config = RunConfig {
                steps: Some(200),
                checkpoint_every: 20.into(),
                workers: 1 + (runs % 4) as usize,
                ..common::config(device)
            };
            let source = common::rows(320);
            let builder = Trainer::builder(common::model(source.spec()), source).config(config);
            let trainer = builder.validation(common::rows(40)).run_dir(dir.path()).start().unwrap();
            // Every third run is left in the middle.
            match runs % 3 {
                0 => drop(pollster::block_on(trainer.step()).unwrap()),
                _ => {
                    let summary = pollster::block_on(trainer.fit()).unwrap();
                    allocated.push((device, summary.device.allocated_bytes));
                }
            }
            runs += 1;
        }
        let has = (resident_bytes(), open_files(), all_threads().len());
        if 12 * began.elapsed().as_secs() >= seconds * looks {
            println!(
                "after {:?} and {runs} runs: {has:?} (bytes, files, threads)",
                began.elapsed()
            );
            first.get_or_insert(has);
            looks += 1;
        }
    }
    let first = first.expect("a first look");
    // A thread that was joined is shown for a moment more.
    let settled = until(|| (open_files(), all_threads().len()) == (first.1, first.2));
    let last = (resident_bytes(), open_files(), all_threads().len());
    println!("after {:?} and {runs} runs: {last:?} (bytes, files, threads)", began.elapsed());
    allocated.sort_unstable();
    allocated.dedup();
    println!("allocated on devices by a run: {allocated:?}");
    assert!(settled, "open files and threads: {first:?} to {last:?}, {:?}", all_threads());
    assert!(last.0 < first.0 + first.0 / 10 + (8 << 20), "memory grew: {first:?} to {last:?}");
    for device in common::devices() {
        let mut bytes = allocated.iter().filter(|(of, _)| *of == device).map(|(_, bytes)| *bytes);
        let (least, most) = (bytes.clone().min(), bytes.by_ref().max());
        // Results on their way take a buffer more where more of them are.
        assert!(most <= least.map(|least| least + 4096), "{device}: {allocated:?}");
    }
}
