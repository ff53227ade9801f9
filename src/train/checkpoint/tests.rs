use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::graph::Arena;
use crate::graph::plan::{CONTROL_NAME, Variable};
use crate::nn::layers::Layer;
use crate::nn::losses::Loss;
use crate::nn::optimizers::OptimizerConfig;
use crate::nn::sequential::Sequential;
use crate::rng::Rng;
use crate::train::book::Tally;
use crate::train::compile::{Blueprint, Training, compile};
use crate::train::event::EpochReport;
use crate::train::weights;

fn program_of(hidden: usize, optimizer: OptimizerConfig) -> Program {
    averaged_program_of(hidden, optimizer, None)
}

fn averaged_program_of(hidden: usize, optimizer: OptimizerConfig, ema: Option<f64>) -> Program {
    compiled(hidden, Some(Training { ema, ..Training::new(optimizer.rule()) }))
}

fn compiled(hidden: usize, training: Option<Training>) -> Program {
    let spec = SampleSpec {
        input_shape: vec![1, 3, 3],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 3 },
    };
    let layers = vec![
        Layer::batch_norm(),
        Layer::flatten(),
        Layer::linear(hidden),
        Layer::relu(),
        Layer::classes(),
    ];
    let model = Sequential::new(layers, &spec).expect("the model fits");
    compile(&Blueprint {
        model: &model,
        spec: &spec,
        batch_size: 2,
        mean: &[],
        std: &[],
        loss: Loss::CrossEntropy { smoothing: 0.0 },
        training,
    })
    .expect("the program compiles")
}

fn program() -> Program {
    program_of(5, OptimizerConfig::adamw())
}

/// Random bits in every element, gaps between tensors and NaNs with payloads among them.
fn noise(program: &Program, seed: u64) -> Snapshot {
    let mut rng = Rng::keyed(&[seed]);
    let arenas = program.persistent_arenas().map(|arena| {
        let values = (0..program.arenas[&arena]).map(|i| match i % 7 {
            0 => f32::from_bits(0x7f80_0001 | rng.next_u64() as u32),
            _ => f32::from_bits(rng.next_u64() as u32),
        });
        (arena, values.collect())
    });
    Snapshot { arenas: arenas.collect() }
}

fn bits(snapshot: &Snapshot) -> Vec<(Arena, Vec<u32>)> {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
    snapshot.arenas.iter().map(|(arena, values)| (*arena, bits(values))).collect()
}

/// As [`noise`], of numbers that a model can have.
fn numbers(program: &Program, seed: u64) -> Snapshot {
    let mut rng = Rng::keyed(&[seed]);
    let arenas = program
        .persistent_arenas()
        .map(|arena| (arena, (0..program.arenas[&arena]).map(|_| rng.normal() as f32).collect()));
    Snapshot { arenas: arenas.collect() }
}

/// A checkpoint as the writer takes it.
fn saved(program: &Program, step: u64) -> Save {
    let (snapshot, progress) = (numbers(program, step), at(step));
    Save { snapshot, progress, best: None, before: Vec::new() }
}

/// Compares bit by bit, without printing what differs: thousands of numbers.
#[track_caller]
fn assert_same_bits(found: &Snapshot, expected: &Snapshot, what: &str) {
    assert!(bits(found) == bits(expected), "{what}: not the bits that were saved");
}

fn at(step: u64) -> Progress {
    Progress { step, ..Default::default() }
}

fn run_dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn save_noise(run: &Path, step: u64) -> Snapshot {
    let program = program();
    let snapshot = noise(&program, step);
    save(run, &program, 9, &snapshot, at(step), 2).expect("saves");
    snapshot
}

fn names(run: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(checkpoints_dir(run)).expect("a folder of checkpoints");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect()
}

fn expect_names(run: &Path, expected: &[&str]) {
    assert_eq!(names(run), expected.iter().map(ToString::to_string).collect());
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error = result.expect_err("must be refused");
    assert_eq!(error.kind().exit_code(), 6);
    error.to_string()
}

#[test]
fn every_bit_comes_back() {
    let run = run_dir();
    for optimizer in [
        OptimizerConfig::adamw(),
        OptimizerConfig::sgd(),
        OptimizerConfig::Sgd {
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            decay_norms_and_biases: true,
        },
    ] {
        let program = program_of(5, optimizer);
        let snapshot = noise(&program, 1);
        let report = save(run.path(), &program, 9, &snapshot, at(3), 2).expect("saves");
        let checkpoint = Checkpoint::open(&report.path).expect("opens");
        let restored = checkpoint.restore(&program).expect("fits");
        assert_same_bits(&restored, &snapshot, optimizer.name());
        assert_eq!((checkpoint.manifest.seed, checkpoint.progress), (9, at(3)));
        let on_disk: u64 = [MODEL_FILE, STATE_FILE, manifest::FILE]
            .map(|file| fs::metadata(report.path.join(file)).expect("a file").len())
            .iter()
            .sum();
        assert_eq!(report.bytes, on_disk);
    }
}

/// Gaps between tensors are zeros in practice, and then take no room in the file.
#[test]
fn tensors_have_their_names() {
    let run = run_dir();
    let program = program();
    let arenas =
        program.persistent_arenas().map(|arena| (arena, vec![0.0; program.arenas[&arena]]));
    let snapshot = Snapshot { arenas: arenas.collect() };
    let report = save(run.path(), &program, 9, &snapshot, at(1), 2).expect("saves");
    let checkpoint = Checkpoint::open(report.path).expect("opens");
    let of = |file: &str| {
        let tensors = checkpoint.manifest.tensors.iter().filter(|tensor| tensor.file == file);
        tensors.map(|tensor| tensor.name.as_str()).collect::<Vec<_>>()
    };
    let params =
        ["net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias", "net.4.weight", "net.4.bias"];
    let states = ["net.0.running_mean", "net.0.num_batches_tracked", "net.0.running_var"];
    assert_eq!(of(MODEL_FILE), [&params[..], &states].concat());
    let moments = |prefix: &str| params.map(|name| format!("{prefix}.{name}"));
    let control = vec!["optimizer.control".to_string()];
    assert_eq!(of(STATE_FILE), [&moments("first")[..], &moments("second"), &control].concat());
    assert_same_bits(&checkpoint.restore(&program).expect("fits"), &snapshot, "zeros");
}

#[test]
fn with_an_average_the_model_is_the_average_and_every_bit_comes_back() {
    let run = run_dir();
    let program = averaged_program_of(5, OptimizerConfig::sgd(), Some(0.9));
    let snapshot = noise(&program, 1);
    let report = save(run.path(), &program, 9, &snapshot, at(3), 2).expect("saves");
    let checkpoint = Checkpoint::open(&report.path).expect("opens");
    assert_same_bits(&checkpoint.restore(&program).expect("fits"), &snapshot, "with an average");
    // Whoever uses the model needs no training, and gets the averages.
    let average = weights::arena_of(&snapshot, Arena::Average).expect("is kept");
    let program = compiled(5, None);
    let placed = checkpoint.weights.place(&program).expect("fits");
    for (_, variable, values) in placed.iter().filter(|(arena, ..)| *arena == Arena::Params) {
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(values) == bits(&average[variable.range()]), "{}", variable.name);
    }
    let error = message(checkpoint.restore(&program_of(5, OptimizerConfig::sgd())));
    assert!(error.contains("raw.net.0.weight: unexpected, found F32 [1]"), "{error}");
}

#[test]
fn progress_comes_back_exactly_even_where_a_loss_was_nan() {
    let run = run_dir();
    let program = program();
    let mut rng = Rng::keyed(&[5]);
    for step in 1..50 {
        let tally = Tally { loss: rng.normal() / 3.0, correct: 7.0, count: rng.uniform(), bad: 3 };
        let epoch =
            EpochReport { loss: rng.uniform() * 1e-7, val_loss: None, ..Default::default() };
        let progress = Progress { step, epoch: tally, last_epoch: Some(epoch), rollbacks: 2 };
        let report =
            save(run.path(), &program, 9, &noise(&program, 1), progress, 2).expect("saves");
        assert_eq!(Checkpoint::open(report.path).expect("opens").progress, progress);
    }
    let tally = Tally { loss: f64::NAN, correct: 0.0, count: 8.0, bad: 0 };
    let epoch = EpochReport { loss: f64::NAN, samples_per_s: f64::NAN, ..Default::default() };
    let last_epoch = Some(epoch);
    let progress = Progress { step: 50, epoch: tally, last_epoch, ..Default::default() };
    let report = save(run.path(), &program, 9, &noise(&program, 1), progress, 2).expect("saves");
    let restored = Checkpoint::open(report.path).expect("opens").progress;
    assert!(restored.epoch.loss.is_nan() && restored.epoch.count == 8.0);
}

#[test]
fn a_flipped_bit_or_a_missing_end_is_refused_naming_the_file() {
    let run = run_dir();
    save_noise(run.path(), 1);
    let folder = checkpoints_dir(run.path()).join("step-1");
    let mut rng = Rng::keyed(&[3]);
    for file in [MODEL_FILE, STATE_FILE, manifest::FILE] {
        let path = folder.join(file);
        let whole = fs::read(&path).expect("readable");
        let refused = |what: &str| {
            let error = message(Checkpoint::open(&folder));
            assert!(error.contains(file), "{what}: {error}");
        };
        for _ in 0..60 {
            let mut bytes = whole.clone();
            let (byte, bit) = (rng.below(bytes.len() as u64) as usize, rng.below(8));
            bytes[byte] ^= 1 << bit;
            fs::write(&path, bytes).expect("writable");
            refused(&format!("byte {byte}, bit {bit}"));
        }
        for len in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).expect("writable");
            refused(&format!("{len} bytes"));
        }
        fs::remove_file(&path).expect("removable");
        refused("missing");
        fs::write(&path, whole).expect("writable");
        Checkpoint::open(&folder).expect("whole again");
    }
}

#[test]
fn another_model_or_optimizer_is_refused_tensor_by_tensor() {
    let run = run_dir();
    save_noise(run.path(), 1);
    let checkpoint = latest(run.path()).expect("there is one").checkpoint;
    let error = message(checkpoint.restore(&program_of(6, OptimizerConfig::adamw())));
    assert!(
        error.contains("model.safetensors: does not fit the model, 3 tensors differ:"),
        "{error}"
    );
    assert!(error.contains("net.2.weight: found F32 [5, 9], expected F32 [6, 9]"), "{error}");
    let error = message(checkpoint.restore(&program_of(5, OptimizerConfig::sgd())));
    assert!(
        error.contains("state.safetensors: does not fit the model, 6 tensors differ:"),
        "{error}"
    );
    assert!(error.contains("second.net.0.bias: unexpected, found F32 [1]"), "{error}");
}

#[test]
fn another_format_is_refused_and_nothing_takes_its_place() {
    let run = run_dir();
    save_noise(run.path(), 1);
    save_noise(run.path(), 2);
    let newest = checkpoints_dir(run.path()).join("step-2").join(manifest::FILE);
    let text = fs::read_to_string(&newest).expect("readable");
    fs::write(&newest, text.replace("\"format\": 1", "\"format\": 2")).expect("writable");
    let error = message(latest(run.path()));
    assert!(error.contains("step-2") && error.contains("has format 2"), "{error}");
}

/// As a link to itself, a file is there and cannot be read, whoever asks.
#[cfg(unix)]
fn refuse(path: &Path) -> PathBuf {
    let whole = path.with_extension("whole");
    fs::rename(path, &whole).expect("a rename");
    let name = path.file_name().expect("a file");
    std::os::unix::fs::symlink(name, path).expect("a link");
    whole
}

#[cfg(unix)]
#[test]
fn what_cannot_be_read_now_is_not_damaged_and_nothing_takes_its_place() {
    let run = run_dir();
    save_noise(run.path(), 1);
    save_noise(run.path(), 2);
    let newest = checkpoints_dir(run.path()).join("step-2");
    for file in [MODEL_FILE, STATE_FILE, manifest::FILE] {
        let path = newest.join(file);
        let whole = refuse(&path);
        for found in [latest(run.path()), find(run.path()), find(&newest)] {
            let error = message(found);
            assert!(error.contains(&format!("step-2/{file}: cannot be read")), "{error}");
            assert!(error.contains("try again once it can be read"), "{error}");
        }
        for at in [run.path(), &newest] {
            let listed = survey(at).expect("they are there");
            let verified = listed.last().expect("the newest").verify();
            assert!(matches!(verified, Err(Unread::Refused(_))), "{file}: {verified:?}");
        }
        fs::rename(&whole, &path).expect("a rename");
        assert_eq!(latest(run.path()).expect("as before").checkpoint.progress.step, 2);
    }
    expect_names(run.path(), &["step-1", "step-2"]);
}

#[test]
fn the_newest_whole_checkpoint_is_found() {
    let run = run_dir();
    assert!(message(latest(run.path())).contains("has no checkpoints"));
    let first = save_noise(run.path(), 9);
    save_noise(run.path(), 10);
    let found = latest(run.path()).expect("there is one");
    assert_eq!((found.checkpoint.progress.step, found.damaged.len()), (10, 0));
    let damaged = checkpoints_dir(run.path()).join("step-10").join(STATE_FILE);
    fs::write(&damaged, b"torn").expect("writable");
    let found = find(run.path()).expect("the one before");
    assert_eq!(found.checkpoint.progress.step, 9);
    assert_same_bits(&found.checkpoint.restore(&program()).expect("fits"), &first, "step 9");
    assert!(found.damaged[0].item().ends_with("step-10/state.safetensors"), "{:?}", found.damaged);
    assert!(
        message(find(checkpoints_dir(run.path()).join("step-10"))).contains("state.safetensors")
    );
}

#[test]
fn only_the_newest_stay_and_always_the_one_just_written() {
    let run = run_dir();
    for step in [8, 9, 10] {
        save_noise(run.path(), step);
    }
    expect_names(run.path(), &["step-9", "step-10"]);
    // A run that went back to an earlier checkpoint writes one that is not the newest.
    save_noise(run.path(), 3);
    expect_names(run.path(), &["step-10", "step-3"]);
    let program = program();
    save(run.path(), &program, 9, &noise(&program, 4), at(4), 0).expect("saves");
    expect_names(run.path(), &["step-10", "step-4"]);
}

#[test]
fn a_failing_save_leaves_what_was_there() {
    let run = run_dir();
    let program = program();
    let snapshot = save_noise(run.path(), 1);
    fs::write(checkpoints_dir(run.path()).join("step-2"), b"in the way").expect("writable");
    let failed = save(run.path(), &program, 9, &noise(&program, 2), at(2), 2);
    assert!(message(failed).contains("step-2: is in the way: not a folder"));
    expect_names(run.path(), &["step-1", "step-2"]);
    let found = latest(run.path()).expect("the one before");
    assert_same_bits(&found.checkpoint.restore(&program).expect("fits"), &snapshot, "step 1");

    let incomplete = Snapshot { arenas: vec![snapshot.arenas[0].clone()] };
    assert!(message(save(run.path(), &program, 9, &incomplete, at(3), 2)).contains("snapshot"));
    expect_names(run.path(), &["step-1", "step-2"]);

    let other = run_dir();
    fs::write(checkpoints_dir(other.path()), b"in the way").expect("writable");
    assert!(
        message(save(other.path(), &program, 9, &snapshot, at(1), 2)).contains("cannot be created")
    );
}

/// Every state that a process killed while saving can leave behind.
#[test]
fn a_killed_save_leaves_the_old_or_the_new_one() {
    let run = run_dir();
    let snapshot = save_noise(run.path(), 1);
    let folder = checkpoints_dir(run.path());
    let expect_found = |what: &str| {
        let found = latest(run.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_same_bits(&found.checkpoint.restore(&program()).expect("fits"), &snapshot, what);
    };
    // While the files are written.
    let temporary = folder.join(".step-2.tmp-1234");
    fs::create_dir(&temporary).expect("a folder");
    expect_found("an empty folder");
    fs::write(temporary.join(MODEL_FILE), b"half of it").expect("writable");
    expect_found("a torn file");
    // While the same step is being replaced.
    fs::rename(folder.join("step-1"), folder.join("step-1.old")).expect("a rename");
    expect_found("stepped aside");
    fs::create_dir(folder.join("step-1")).expect("a folder");
    fs::write(folder.join("step-1").join(manifest::FILE), b"{").expect("writable");
    expect_found("the new one is torn");
    // The next save clears it all away.
    save_noise(run.path(), 1);
    expect_found("replaced");
    expect_names(run.path(), &["step-1"]);
}

#[test]
fn the_writer_saves_in_the_background_and_delivers() {
    let run = run_dir();
    let program = Arc::new(program());
    let mut writer = CheckpointWriter::start(run.path(), program.clone(), 9, 2).expect("starts");
    assert!(writer.saved(true).expect("nothing to wait for").is_empty());
    for step in [1, 2, 3] {
        writer.save(saved(&program, step)).expect("accepted");
    }
    let steps: Vec<u64> =
        writer.saved(true).expect("saved").iter().map(|report| report.step).collect();
    assert_eq!(steps, [1, 2, 3]);
    writer.save(saved(&program, 4)).expect("accepted");
    drop(writer);
    assert_eq!(latest(run.path()).expect("waited for").checkpoint.progress.step, 4);
}

#[test]
fn the_writer_delivers_its_errors() {
    let run = run_dir();
    let program = Arc::new(program());
    fs::write(checkpoints_dir(run.path()), b"in the way").expect("writable");
    let mut writer = CheckpointWriter::start(run.path(), program.clone(), 9, 2).expect("starts");
    writer.save(saved(&program, 1)).expect("accepted");
    assert!(message(writer.saved(true)).contains("cannot be created"));
    writer.save(saved(&program, 2)).expect("accepted");
    assert!(message(writer.save(saved(&program, 3))).contains("cannot be created"));
}

#[test]
fn the_best_stays_and_can_be_named() {
    let run = run_dir();
    let program = Arc::new(program());
    let mut writer = CheckpointWriter::start(run.path(), program.clone(), 9, 2).expect("starts");
    let best = |step| Best { step, metric: Metric::ValLoss, value: 1.0 };
    writer.save(saved(&program, 1)).expect("accepted");
    writer.mark(best(1)).expect("accepted");
    for step in [2, 3, 4] {
        writer.save(saved(&program, step)).expect("accepted");
    }
    assert_eq!(writer.saved(true).expect("saved").len(), 4);
    expect_names(run.path(), &["best.json", "step-1", "step-3", "step-4"]);
    writer.save(Save { best: Some(best(5)), ..saved(&program, 5) }).expect("accepted");
    writer.save(saved(&program, 6)).expect("accepted");
    writer.saved(true).expect("saved");
    expect_names(run.path(), &["best.json", "step-5", "step-6"]);
    writer.save(saved(&program, 7)).expect("accepted");
    writer.saved(true).expect("saved");
    expect_names(run.path(), &["best.json", "step-5", "step-6", "step-7"]);
    let found = find(checkpoints_dir(run.path()).join("best")).expect("is there");
    assert_eq!(found.checkpoint.progress.step, 5);
    let listed = survey(run.path()).expect("three");
    let best: Vec<_> = listed.iter().map(|listed| listed.best.map(|best| best.step)).collect();
    assert_eq!(best, [Some(5), None, None]);
    // Without it there is none, and with a damaged note there is none either.
    fs::write(checkpoints_dir(run.path()).join("best.json"), "{").expect("writable");
    assert!(find(checkpoints_dir(run.path()).join("best")).is_err());
}

#[cfg(unix)]
#[test]
fn while_it_cannot_be_read_which_is_the_best_all_stay() {
    let run = run_dir();
    let folder = checkpoints_dir(run.path());
    save_noise(run.path(), 1);
    let note = folder.join(best::FILE);
    Best { step: 1, metric: Metric::ValLoss, value: 1.0 }.write(&folder).expect("writable");
    let whole = refuse(&note);
    for step in [2, 3, 4] {
        save_noise(run.path(), step);
    }
    assert!(message(settle(run.path(), 4)).contains("best.json: cannot be read"));
    fs::rename(&whole, &note).expect("a rename");
    expect_names(run.path(), &["best.json", "step-1", "step-2", "step-3", "step-4"]);
    save_noise(run.path(), 5);
    expect_names(run.path(), &["best.json", "step-1", "step-4", "step-5"]);
}

#[test]
fn what_was_not_saved_is_not_noted_as_the_best() {
    let run = run_dir();
    let program = Arc::new(program());
    let mut writer = CheckpointWriter::start(run.path(), program.clone(), 9, 2).expect("starts");
    writer.save(saved(&program, 1)).expect("accepted");
    writer.mark(Best { step: 2, metric: Metric::ValLoss, value: 1.0 }).expect("accepted");
    writer.saved(true).expect("saved");
    expect_names(run.path(), &["step-1"]);
}

#[test]
fn what_a_run_went_back_behind_is_set_aside() {
    let run = run_dir();
    settle(run.path(), 0).expect("there is nothing yet");
    let best = |step| {
        let best = Best { step, metric: Metric::ValLoss, value: 1.0 };
        best.write(&checkpoints_dir(run.path())).expect("writable");
    };
    save_noise(run.path(), 9);
    save_noise(run.path(), 10);
    best(10);
    settle(run.path(), 10).expect("nothing is later");
    expect_names(run.path(), &["best.json", "step-9", "step-10"]);
    settle(run.path(), 9).expect("renames");
    expect_names(run.path(), &["step-9", "step-10.abandoned"]);
    assert_eq!(latest(run.path()).expect("one is left").checkpoint.progress.step, 9);
    // They take nobody's place, and a later one of the same step takes theirs.
    let newer = noise(&program(), 77);
    save(run.path(), &program(), 9, &newer, at(10), 2).expect("saves");
    save_noise(run.path(), 11);
    expect_names(run.path(), &["step-10", "step-10.abandoned", "step-11"]);
    best(10);
    settle(run.path(), 0).expect("renames");
    expect_names(run.path(), &["step-10.abandoned", "step-11.abandoned"]);
    let kept = Checkpoint::open(checkpoints_dir(run.path()).join("step-10.abandoned"));
    let kept = kept.expect("whole").restore(&program()).expect("fits");
    assert_same_bits(&kept, &newer, "the later one");
}

#[test]
fn a_checkpoint_that_had_stepped_aside_gets_its_name_back() {
    let run = run_dir();
    let folder = checkpoints_dir(run.path());
    let snapshot = save_noise(run.path(), 4);
    Best { step: 4, metric: Metric::ValLoss, value: 1.0 }.write(&folder).expect("writable");
    fs::rename(folder.join("step-4"), folder.join("step-4.old")).expect("a rename");
    settle(run.path(), 4).expect("renames");
    // It is the best again, and stays.
    for step in [5, 6, 7] {
        save_noise(run.path(), step);
    }
    expect_names(run.path(), &["best.json", "step-4", "step-6", "step-7"]);
    let found = find(folder.join("best")).expect("is there").checkpoint;
    assert_same_bits(&found.restore(&program()).expect("fits"), &snapshot, "the best");
}

#[test]
fn a_model_that_is_not_finite_is_never_saved() {
    let run = run_dir();
    for (arena, program) in [
        (Arena::Params, program()),
        (Arena::State, program()),
        (Arena::Average, averaged_program_of(5, OptimizerConfig::sgd(), Some(0.9))),
    ] {
        let program = Arc::new(program);
        let mut writer =
            CheckpointWriter::start(run.path(), program.clone(), 9, 2).expect("starts");
        for bad in [f32::NAN, f32::INFINITY] {
            let mut save = saved(&program, 1);
            let (_, values) =
                save.snapshot.arenas.iter_mut().find(|(found, _)| *found == arena).expect("there");
            let variables = if arena == Arena::State { &program.states } else { &program.params };
            let is_model = |v: &&Variable| v.name != CONTROL_NAME;
            let variable = variables.iter().find(is_model).expect("a variable of the model");
            values[variable.range().start] = bad;
            writer.save(save).expect("accepted");
            let error = writer.saved(true).expect_err("refused");
            assert_eq!(error.kind(), crate::error::ErrorKind::Diverged, "{error}");
            assert!(error.to_string().contains("values are not finite at step 1"), "{error}");
        }
        assert!(!any(run.path()).expect("readable"));
    }
}

#[test]
fn differences_are_told_tensor_by_tensor() {
    let (a, b) = (run_dir(), run_dir());
    let program = program();
    let snapshot = numbers(&program, 1);
    let put = |run: &Path, program: &Program, snapshot: &Snapshot| {
        let report = save(run, program, 9, snapshot, at(3), 2).expect("saves");
        Checkpoint::open(report.path).expect("opens")
    };
    let first = put(a.path(), &program, &snapshot);
    let found = diff(&first, &put(b.path(), &program, &snapshot));
    // And what lies between tensors, which these numbers fill.
    assert!(found.tensors.is_empty() && found.same >= 22, "{found:?}");
    let mut changed = snapshot.clone();
    let bias = program.params.iter().find(|v| v.name == "net.2.bias").expect("a bias").range();
    changed.arenas.iter_mut().find(|(arena, _)| *arena == Arena::Params).expect("there").1
        [bias.start] += 0.5;
    let found = diff(&first, &put(b.path(), &program, &changed));
    let [tensor] = &found.tensors[..] else { panic!("{found:?}") };
    assert_eq!((tensor.file.as_str(), tensor.name.as_str()), (MODEL_FILE, "net.2.bias"));
    let values = tensor.values.expect("of one shape");
    assert_eq!((values.differing, values.of), (1, 5));
    assert!((values.abs_max - 0.5).abs() < 1e-6 && values.relative > 0.0, "{values:?}");
    let other = program_of(6, OptimizerConfig::sgd());
    let found = diff(&first, &put(b.path(), &other, &numbers(&other, 1)));
    let weight = found.tensors.iter().find(|t| t.name == "net.2.weight").expect("another shape");
    assert_eq!(
        (weight.a.as_deref(), weight.b.as_deref()),
        (Some("F32 [5, 9]"), Some("F32 [6, 9]"))
    );
    let moment = found.tensors.iter().find(|t| t.name == "second.net.0.bias").expect("missing");
    assert_eq!((moment.a.as_deref(), &moment.b), (Some("F32 [1]"), &None));
}
