use super::*;

fn parse(text: &str) -> RunConfig {
    RunConfig::parse(text, "run.toml").expect("a valid configuration")
}

/// The message of an invalid configuration, made of valid TOML.
fn refusal(text: &str) -> String {
    let error = parse(text).validate().expect_err("must be refused");
    assert_eq!(error.kind().exit_code(), 2);
    error.to_string()
}

#[test]
fn defaults_are_valid_and_survive_a_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = RunConfig {
        dataset: Some("fashion-mnist".into()),
        clip_norm: Some(0.1),
        out: Some("here".into()),
        lr: Some(0.1 + 0.2),
        schedule: Some(Schedule::one_cycle()),
        ..Default::default()
    };
    config.validate().expect("valid");
    config.save(dir.path()).expect("saves");
    let loaded = RunConfig::load(&dir.path().join("config.toml")).expect("loads");
    assert_eq!(loaded, RunConfig { out: None, ..config });
    assert_eq!(parse(""), RunConfig::default());
}

#[test]
fn optimizer_and_schedule_are_names_or_tables() {
    let named = parse("optimizer = \"sgd\"\nschedule = \"cosine\"");
    assert_eq!(named.optimizer, OptimizerConfig::sgd());
    assert_eq!(named.schedule, Some(Schedule::Cosine { min: 0.0 }));
    let tables = parse(
        "optimizer = { type = \"sgd\", momentum = 0.5 }\n[schedule]\ntype = \"step\"\nevery = 7",
    );
    assert!(matches!(tables.optimizer, OptimizerConfig::Sgd { momentum: 0.5, .. }));
    assert_eq!(tables.schedule, Some(Schedule::Step { every: 7, gamma: 0.1 }));
}

#[test]
fn slips_in_a_file_name_its_line() {
    let message = |text| RunConfig::parse(text, "run.toml").expect_err("refused").to_string();
    let unknown = message("lr = 0.1\nbatchsize = 3");
    assert!(unknown.starts_with("config: run.toml:2: unknown field `batchsize`"), "{unknown}");
    assert!(message("lr = \"fast\"").starts_with("config: run.toml:1: invalid type"));
    assert!(
        message("optimizer = \"sdg\"").contains("found \"sdg\", expected one of sgd, adam, adamw")
    );
    assert!(message("schedule = \"step\"").contains("every = 1000"));
    assert!(message("[optimizer]\ntype = \"sgd\"\nmomentun = 1").contains("`momentun`"));
    let warmup = "[schedule]\ntype = \"constant\"\nwarmup_steps = 500";
    assert!(message(warmup).contains("`warmup_steps`"), "{}", message(warmup));
    assert!(message("lr = ").starts_with("config: run.toml:1: "));
}

#[test]
fn settings_out_of_range_name_the_flag() {
    assert_eq!(
        refusal("lr = nan"),
        "config: --lr: found NaN, expected a finite number above 0; try --lr 0.001"
    );
    for lr in ["inf", "-1.0", "0.0", "1e300", "1e-300"] {
        assert!(refusal(&format!("lr = {lr}")).starts_with("config: --lr: "), "{lr}");
    }
    assert_eq!(refusal("epochs = 0"), "config: --epochs: found 0, expected at least 1");
    assert_eq!(refusal("steps = 0"), "config: --steps: found 0, expected at least 1");
    assert_eq!(refusal("batch_size = 0"), "config: --batch-size: found 0, expected at least 1");
    assert!(refusal("batch_size = 9000000").contains("expected at most 1048576"));
    assert!(refusal("epochs = 1\nsteps = 1").contains("found both"));
    assert!(refusal("slots = 1").contains("--slots: found 1, expected at least 2"));
    for (key, flag) in [("slots", "--slots"), ("readers", "--readers"), ("prefetch", "--prefetch")]
    {
        let text = refusal(&format!("{key} = 100000"));
        assert!(text.starts_with(&format!("config: {flag}: found 100000")), "{text}");
    }
    assert!(refusal("precision = \"f8\"").contains("--precision: found f8, expected f32 or f16"));
    parse("precision = \"f16\"").validate().expect("known");
    assert!(refusal("label_smoothing = nan").contains("--label-smoothing"));
    assert!(refusal("clip_norm = 0.0").contains("--clip-norm"));
    for decay in ["nan", "1.0", "-0.1", "inf"] {
        assert!(refusal(&format!("ema = {decay}")).starts_with("config: --ema: "), "{decay}");
    }
    parse("ema = 0.9999").validate().expect("a usual decay");
    assert!(refusal("mixup = 0.0").contains("--mixup: found 0, expected a number above 0"));
    assert!(refusal("cutmix = nan").contains("--cutmix: found NaN"));
    assert!(refusal("accumulate = 0").contains("--accumulate"));
    assert!(refusal("keep = 0").contains("--keep"));
    assert!(refusal("workers = 100000").contains("--workers"));
    assert!(refusal("optimizer = { type = \"sgd\", momentum = nan }").contains("momentum"));
    let sampling = |keys: &str| refusal(&format!("[sampling]\n{keys}"));
    assert!(sampling("val_split = 1.5").contains("--val-split: found 1.5, expected a share above"));
    assert!(sampling("world = 0").contains("--world: found 0, expected 1 to"));
    let message = sampling("rank = 2\nworld = 2");
    assert!(message.contains("--rank: found rank 2 of 2, expected a rank below 2"), "{message}");
    assert!(sampling("shuffle_block = 0").contains("--shuffle-block: found 0"));
    assert!(sampling("shuffle_block = 9\nbalance = true").contains("leaving one of both out"));
    parse("slots = 1\nsync = true").validate().expect("one slot is what sync means");
}

#[test]
fn a_ring_beyond_its_bound_says_what_fits() {
    let config = RunConfig { batch_size: 100, max_slot_bytes: 3_000, ..Default::default() };
    config.ring(1_000).expect("fits exactly");
    let error = config.ring(2_000).expect_err("twice as much").to_string();
    assert_eq!(
        error,
        "config: --batch-size: 3 slots of 2000 bytes take 6000 bytes, expected at most 3000 \
         (max_slot_bytes); try --batch-size 50, or fewer --slots"
    );
    assert!(config.ring(usize::MAX).is_err());
}

#[test]
fn a_ring_that_is_not_given_has_room_to_grow_within_a_quarter_of_its_bound() {
    let config = RunConfig { memory_budget: 20_000, ..Default::default() };
    let slots = [100, 1_000, 1_250, 5_000].map(|bytes| config.ring(bytes).expect("fits"));
    assert_eq!(slots, [6, 5, 4, 3]);
    let given = RunConfig { slots: Some(9), ..config.clone() };
    assert_eq!(given.ring(1_000).expect("fits"), 9);
    let sync = RunConfig { sync: true, ..config.clone() };
    assert_eq!(sync.ring(1_000).expect("fits"), 1);
    assert_eq!(config.find(), Find { workers: true, slots: true });
    assert_eq!(sync.find(), Find::default());
    assert_eq!(given.find(), Find { workers: true, slots: false });
}

#[test]
fn steps_and_rates_follow_from_it() {
    assert_eq!(RunConfig::default().total_steps(10), 50);
    assert_eq!(parse("epochs = 3").total_steps(10), 30);
    assert_eq!(parse("steps = 7").total_steps(10), 7);
    let lr = parse("lr = 1.0\nwarmup_steps = 2").learning_rate(10);
    assert_eq!([lr(0), lr(1), lr(2), lr(9)], [0.5, 1.0, 1.0, 1.0]);
}

#[test]
fn a_rate_that_is_given_stays_and_the_default_one_cycles() {
    let last = |text: &str| parse(text).learning_rate(100)(99);
    assert_eq!(last("lr = 0.5"), 0.5);
    assert!(last("lr = 0.5\nschedule = \"cosine\"") < 0.001);
    assert!(last("") < 1e-4 * DEFAULT_LR);
    assert_eq!(last("schedule = \"constant\""), DEFAULT_LR);
    // What a run was is spelled out in its folder, so that a later default does not change it.
    let dir = tempfile::tempdir().expect("a temporary folder");
    RunConfig::default().save(dir.path()).expect("saves");
    let saved = RunConfig::load(&dir.path().join("config.toml")).expect("loads");
    assert_eq!((saved.lr, saved.schedule), (Some(DEFAULT_LR), Some(Schedule::one_cycle())));
}
