use super::*;
use crate::batch::DType;
use crate::graph::Role;
use crate::graph::op::Activation;

/// What llvmpipe reports.
const CAPS: DeviceCaps = DeviceCaps {
    max_workgroups: 65535,
    workgroup_bytes: 32768,
    max_invocations: 1024,
    software: true,
    subgroup_size: 8,
    cooperative: false,
};

/// The software adapter; none where this machine has no Vulkan driver, an error with `REQUIRE_GPU=1`.
fn context() -> Option<Arc<Context>> {
    Context::open("llvmpipe").unwrap_or_else(|error| {
        let required = std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1");
        assert!(!required, "REQUIRE_GPU=1 and {error}");
        eprintln!("SKIPPED: no adapter to tune on");
        None
    })
}

/// A matrix product of these sizes.
fn product(rows: usize, cols: usize, inner: usize, times: usize) -> Task {
    let tensor = |shape: [usize; 2]| Tensor {
        name: "a tensor".into(),
        shape: shape.to_vec(),
        dtype: DType::F32,
        role: Role::Activation,
    };
    let op = Op::MatMul {
        transpose_a: false,
        transpose_b: false,
        bias: false,
        activation: Activation::Identity,
    };
    let inputs = vec![tensor([rows, inner]), tensor([inner, cols])];
    Task { op, inputs, outputs: vec![tensor([rows, cols])], times }
}

fn tuner(folder: &Path) -> Tuner {
    Tuner::new(Tune::Fast).folder(folder).budget(Duration::from_secs(60))
}

fn tune(tuner: &Tuner, context: &Arc<Context>) -> Tuning {
    tuner.tasks([product(70, 40, 20, 1)].into_iter(), context)
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files = std::fs::read_dir(folder).expect("a folder");
    files.next().expect("a file").expect("readable").path()
}

fn kept(folder: &Path) -> Kept {
    let text = std::fs::read_to_string(only_file(folder)).expect("readable");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn what_failed_to_be_timed_is_no_finding() {
    let Some(context) = context() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The costliest first: its operands are larger than what the device binds.
    let binding_bytes = context.device.limits().max_storage_buffer_binding_size as usize;
    let huge = product(70, 40, binding_bytes / 4 / 40, 1);
    let tasks = || [product(70, 40, 20, 1), huge.clone()].into_iter();
    assert_eq!(distinct(tasks(), &context.caps()).len(), 2, "both leave a choice");
    let tuning = tuner(folder.path()).tasks(tasks(), &context);
    assert!(tuning.timed >= 2, "{tuning:?}");
    assert_eq!(kept(folder.path()).tiles.len(), 1);
}

#[test]
fn a_device_that_hangs_is_timed_no_further_and_nothing_is_kept_of_it() {
    let (Some(context), Some(again)) = (context(), context()) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let _told = context.hangs(Duration::ZERO);
    assert_eq!(tune(&tuner(folder.path()), &context).timed, 0);
    assert_eq!(kept(folder.path()).tiles.len(), 0);
    assert!(tune(&tuner(folder.path()), &again).timed >= 2, "on a device that answers");
}

#[test]
fn a_second_start_times_nothing_and_chooses_the_same() {
    let Some(context) = context() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = tune(&tuner(folder.path()), &context);
    assert!(first.timed >= 2, "{first:?}");
    let second = tune(&tuner(folder.path()), &context);
    assert_eq!(second.timed, 0);
    assert_eq!(second.choices.0, first.choices.0);
    let off = Tuner::new(Tune::Off).folder(folder.path());
    assert_eq!(tune(&off, &context).choices.0.len(), 0);
    // What is new is timed, what is known is not.
    let more = [product(70, 40, 20, 1), product(33, 40, 20, 1)];
    let third = tuner(folder.path()).tasks(more.into_iter(), &context);
    assert_eq!(third.timed, first.timed);
}

#[test]
fn without_time_shapes_decide() {
    let Some(context) = context() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hasty = tuner(folder.path()).budget(Duration::ZERO);
    let tuning = tune(&hasty, &context);
    assert_eq!((tuning.timed, tuning.choices.0.len()), (0, 0));
    // What was given up is not taken up again, except by whoever has the time.
    assert_eq!(tune(&tuner(folder.path()), &context).timed, 0);
    let full = Tuner::new(Tune::Full).folder(folder.path());
    assert!(tune(&full, &context).timed > 0);
    assert_eq!(tune(&full, &context).timed, 0);
    assert_eq!(tune(&tuner(folder.path()), &context).timed, 0);
}

#[test]
fn a_file_that_cannot_be_trusted_counts_for_nothing() {
    let Some(context) = context() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = tune(&tuner(folder.path()), &context);
    let file = only_file(folder.path());
    let good = std::fs::read_to_string(&file).expect("readable");
    let mut kept: Kept = serde_json::from_str(&good).expect("JSON");
    kept.tiles.values_mut().for_each(|entry| entry.tile = Some("tiled-9x9".into()));
    let unknown = serde_json::to_string(&kept).expect("JSON");
    // Another device's, half a file, none of ours, a tile that there is not.
    let foreign = good.replace("llvmpipe", "another");
    for bad in [foreign.as_str(), &good[..good.len() / 2], "", "[]", &unknown] {
        std::fs::write(&file, bad).expect("writable");
        assert_eq!(tune(&tuner(folder.path()), &context).timed, first.timed, "{bad}");
        assert_eq!(tune(&tuner(folder.path()), &context).timed, 0, "and it is put right");
    }
}

#[test]
fn tasks_are_distinct_and_those_without_a_choice_are_none() {
    let mut relu = product(8, 8, 8, 1);
    relu.op = Op::Relu;
    let tasks = [product(8, 8, 8, 1), relu, product(64, 8, 8, 1), product(8, 8, 8, 2)];
    let found = distinct(tasks.into_iter(), &CAPS);
    let cost = 2 * 8 * 8 * 8 + 3 * 4 * 64;
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].1, 3 * cost);
}

#[test]
fn a_fast_answer_does_not_do_for_a_full_question() {
    let found = distinct([product(70, 40, 20, 1)].into_iter(), &CAPS);
    let (open, _) = &found[0];
    let mut kept = Kept::default();
    assert_eq!(kept.known(open, Tune::Fast), None);
    kept.insert(&open.key, Some(open.tiles[1]), Tune::Fast);
    assert_eq!(kept.known(open, Tune::Fast), Some(Some(open.tiles[1])));
    assert_eq!(kept.known(open, Tune::Full), None);
    kept.insert(&open.key, None, Tune::Full);
    assert_eq!(kept.known(open, Tune::Full), Some(None));
    assert_eq!(kept.known(open, Tune::Fast), Some(None));
}
