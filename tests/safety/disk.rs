//! Disks that are full or fail, and power that fails: saves in this process, with faults planned.

use std::path::Path;

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::executor::Snapshot;
use inflight::faults::arm;
use inflight::faults::journal::{Disk, Entry, Journal, Luck};
use inflight::graph::plan::Program;
use inflight::nn::layers::Layer;
use inflight::nn::sequential::Sequential;
use inflight::rng::Rng;
use inflight::source::Synthetic;
use inflight::tokenizer::Tokenizer;
use inflight::tokenizer::text::{Text, kept_shards};
use inflight::train::book::Progress;
use inflight::train::checkpoint::{self, checkpoints_dir, save};
use inflight::{ErrorKind, RunConfig, Trainer};

fn program() -> Program {
    let spec = SampleSpec {
        input_shape: vec![1, 2, 2],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 2 },
    };
    let source = std::sync::Arc::new(Synthetic::new(8, spec.clone(), 0).expect("a source"));
    let model = Sequential::new(vec![Layer::flatten(), Layer::classes()], &spec).expect("fits");
    let config = RunConfig { batch_size: 4, device: "cpu".into(), ..Default::default() };
    Trainer::builder(model, source).config(config).program().expect("compiles")
}

fn snapshot(program: &Program, seed: u64) -> Snapshot {
    let mut rng = Rng::keyed(&[seed]);
    let arenas = program.persistent_arenas();
    let values = |len: usize, rng: &mut Rng| (0..len).map(|_| rng.normal() as f32).collect();
    let arenas = arenas.map(|arena| (arena, values(program.arenas[&arena], &mut rng)));
    Snapshot { arenas: arenas.collect() }
}

/// Saves a step whose numbers are drawn by `seed`.
fn put(run: &Path, program: &Program, step: u64, seed: u64) -> inflight::Result<()> {
    let progress = Progress { step, ..Default::default() };
    save(run, program, 0, &snapshot(program, seed), progress, 2).map(drop)
}

/// Which of the seeds the newest checkpoint has the numbers of; `None` without any checkpoint.
#[track_caller]
fn found(run: &Path, program: &Program, seeds: &[u64], what: &str) -> Option<u64> {
    if !checkpoint::any(run).expect("readable") {
        return None;
    }
    super::assert_whole(run, what);
    let latest = checkpoint::latest(run).unwrap_or_else(|error| panic!("{what}: {error}"));
    let restored = latest.checkpoint.restore(program).expect("fits");
    let same = seeds.iter().find(|&&seed| restored == snapshot(program, seed));
    Some(*same.unwrap_or_else(|| panic!("{what}: neither the old nor the new one")))
}

fn leftovers(run: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(checkpoints_dir(run)).expect("a folder").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with('.')).collect()
}

#[test]
fn a_disk_that_is_full_or_fails_at_any_moment_leaves_the_old_checkpoint() {
    let program = program();
    for fault in ["full", "io", "unsynced"] {
        for step in [2, 1] {
            let mut failures = 0;
            for operation in 1.. {
                let run = super::folder();
                let armed = arm("").expect("a plan");
                put(run.path(), &program, 1, 1).expect("saves");
                drop(armed);
                let armed = arm(&format!("{fault}@{operation}")).expect("a plan");
                let what = format!("{fault} at operation {operation} of saving step {step}");
                let outcome = put(run.path(), &program, step, 2);
                drop(armed);
                let now = found(run.path(), &program, &[1, 2], &what);
                assert!(leftovers(run.path()).is_empty(), "{what}: {:?}", leftovers(run.path()));
                match outcome {
                    Ok(()) => {
                        assert_eq!(now, Some(2), "{what}");
                        break;
                    }
                    Err(error) => {
                        failures += 1;
                        assert_eq!(error.kind(), ErrorKind::Checkpoint, "{what}");
                        let reason = ["no storage space", "input/output error"];
                        let text = error.to_string();
                        assert!(reason.iter().any(|r| text.contains(r)), "{what}: {text}");
                        assert!(text.contains("checkpoints"), "{what}: {text}");
                        assert!(now.is_some(), "{what}");
                    }
                }
            }
            assert!(failures >= if fault == "unsynced" { 5 } else { 12 }, "{fault}: {failures}");
        }
    }
}

#[test]
fn a_disk_that_stays_broken_leaves_what_the_next_save_clears_away() {
    let program = program();
    for operation in 1..12 {
        let run = super::folder();
        let armed = arm("").expect("a plan");
        put(run.path(), &program, 1, 1).expect("saves");
        drop(armed);
        let armed = arm(&format!("io@{operation}x1000000")).expect("a plan");
        put(run.path(), &program, 2, 2).expect_err("every operation fails");
        drop(armed);
        assert!(found(run.path(), &program, &[1, 2], "broken").is_some());
        let armed = arm("").expect("a plan");
        put(run.path(), &program, 3, 3).expect("the disk works again");
        drop(armed);
        assert!(leftovers(run.path()).is_empty(), "{operation}: {:?}", leftovers(run.path()));
        assert_eq!(found(run.path(), &program, &[3], "works again"), Some(3));
    }
}

/// What `act` asks of the disk below `run`, and the disk as it was before.
fn journal(run: &Path, act: impl FnOnce()) -> (Disk, Vec<Entry>) {
    let _armed = arm("").expect("a plan");
    let before = Disk::of(run).expect("readable");
    let journal = Journal::open(run);
    act();
    (before, journal.close())
}

/// Checks every state that a power failure during or after `entries` can leave.
fn check_states(disk: &Disk, entries: &[Entry], check: impl Fn(&Path, bool, &str)) -> usize {
    let drawn = (0..12).map(Luck::Drawn);
    let luck: Vec<Luck> =
        [Luck::All, Luck::None, Luck::NamesOnly].into_iter().chain(drawn).collect();
    let (mut disk, mut states) = (disk.clone(), 0);
    for done in 0..=entries.len() {
        for &luck in &luck {
            let left = super::folder();
            disk.fail(luck, left.path()).expect("writable");
            let what = format!("after {:?}, {luck:?}", done.checked_sub(1).map(|at| &entries[at]));
            check(left.path(), done == entries.len(), &what);
            states += 1;
        }
        if let Some(entry) = entries.get(done) {
            disk.apply(entry);
        }
    }
    states
}

#[test]
fn unsynced_writes_lost_at_any_step_of_a_save_leave_the_old_or_the_new_one() {
    let program = program();
    // The first save of a run, the second, one that replaces the same step, and one that removes an older one.
    for (before, step) in [(vec![], 1), (vec![1], 2), (vec![1], 1), (vec![1, 2], 3)] {
        let run = super::folder();
        let armed = arm("").expect("a plan");
        for &step in &before {
            put(run.path(), &program, step, step).expect("saves");
        }
        drop(armed);
        let (disk, entries) = journal(run.path(), || {
            put(run.path(), &program, step, 9).expect("saves");
        });
        assert!(entries.len() > 12, "{entries:?}");
        let old = before.last().copied();
        let seeds: Vec<u64> = old.into_iter().chain([9]).collect();
        let states = check_states(&disk, &entries, |left, is_over, what| {
            let now = found(left, &program, &seeds, what);
            assert!(now.is_some() || old.is_none(), "{what}: nothing is left");
            assert!(!is_over || now == Some(9), "{what}: a finished save was lost");
        });
        assert!(states > 200, "{states}");
    }
}

#[test]
fn a_file_that_is_replaced_is_the_old_or_the_new_one_whatever_was_not_synced() {
    let run = super::folder();
    let path = run.path().join("config.toml");
    std::fs::write(&path, "old").expect("writable");
    let (disk, entries) = journal(run.path(), || {
        inflight::durable::replace_file(&path, b"newer").expect("replaces");
    });
    check_states(&disk, &entries, |left, is_over, what| {
        let text = std::fs::read_to_string(left.join("config.toml")).expect(what);
        assert!(text == "newer" || (text == "old" && !is_over), "{what}: {text:?}");
    });
}

#[test]
fn tokens_that_are_half_removed_are_made_again() {
    let tokenizer = Tokenizer::open("bytes").expect("is known");
    let mut failures = 0;
    for operation in 1..20 {
        let dir = super::folder();
        let root = dir.path().join("tokens");
        let tokens_of = |name: &str| {
            let path = dir.path().join(name);
            if !path.exists() {
                std::fs::write(&path, name.repeat(1_000)).expect("writes");
            }
            kept_shards(&[Text::whole(&path)], &tokenizer, &root, 0)
        };
        let armed = arm("").expect("a plan");
        tokens_of("old").expect("tokens");
        drop(armed);
        let armed = arm(&format!("io@{operation}x1000000")).expect("a plan");
        failures += u32::from(tokens_of("new").is_err());
        drop(armed);
        let armed = arm("").expect("a plan");
        for name in ["old", "new"] {
            let shards = tokens_of(name).expect("the disk works again");
            assert!(
                shards.files.iter().all(|shard| shard.is_file()),
                "{operation}: {name}: {shards:?}"
            );
        }
        drop(armed);
        let names = std::fs::read_dir(&root).expect("a folder").flatten();
        let names: Vec<_> = names.map(|entry| entry.file_name()).collect();
        let folders = names.iter().filter(|name| root.join(name).is_dir()).count();
        assert!(folders == 1, "{operation}: {names:?}");
    }
    assert!(failures > 3, "{failures}");
}

#[test]
fn a_run_on_a_full_disk_ends_with_6_and_its_last_checkpoint() {
    let desk = super::Desk::new();
    // Several saves after the one that fails: the next one at the latest waits for it.
    let flags = "--checkpoint-every 2 --steps 40";
    // Some operations belong to the configuration; later ones to a save in the middle of the run.
    let ended = desk.train("out", flags, "full@70x1000000", 6);
    let error = ended.error();
    // Of the save itself, not of what is written at the end of a run that went on.
    assert!(error.contains("checkpoints") && error.contains("no storage space"), "{error}");
    assert!(ended.all("done").is_empty() && ended.all("step").len() < 40, "{ended:?}");
    desk.run("checkpoint verify out", "", 0);
    let resumed = desk.run("train --resume out --json", "", 0);
    assert_eq!(resumed.hash(), desk.train("whole", flags, "", 0).hash());
    assert!(desk.has_no_leftovers("out"), "{:?}", desk.checkpoints("out"));
}
