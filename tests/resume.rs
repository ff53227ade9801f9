//! A run that is stopped and resumed at any step is the same run, bit for bit.

mod common;

use std::path::Path;

use common::{config, devices, model, rows};
use inflight::nn::optimizers::OptimizerConfig;
use inflight::train::checkpoint;
use inflight::train::event::{Event, StepReport, Summary};
use inflight::{RunConfig, Trainer};

struct Outcome {
    steps: Vec<StepReport>,
    summary: Summary,
}

fn run(config: RunConfig, dir: &Path, resume: bool, stop_after: Option<u64>) -> Outcome {
    let source = rows(100);
    let mut builder = Trainer::builder(model(source.spec()), source).validation(rows(30));
    builder = builder.config(config).run_dir(dir);
    if resume {
        let latest = checkpoint::latest(dir).expect("a checkpoint to resume from");
        builder = builder.resume(latest.checkpoint);
    }
    let trainer = builder.start().expect("the run starts");
    let (events, commands) = (trainer.queue(1000), trainer.commands());
    match stop_after {
        Some(steps) => {
            for _ in 0..steps {
                pollster::block_on(trainer.step()).expect("the step succeeds");
            }
            commands.stop();
        }
        None => {
            pollster::block_on(trainer.fit()).expect("the run succeeds");
        }
    }
    let mut steps = Vec::new();
    for event in events {
        match event.expect("no failure") {
            Event::Step(step) => steps.push(step),
            Event::Done(summary) => return Outcome { steps, summary: *summary },
            _ => {}
        }
    }
    panic!("the run ended without a summary");
}

fn losses(steps: &[StepReport]) -> Vec<(u64, u64)> {
    steps.iter().map(|step| (step.step, step.loss.to_bits())).collect()
}

fn check_every_step(config: &RunConfig) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = run(config.clone(), &folder.path().join("whole"), false, None);
    let total = whole.summary.steps;
    for at in 1..total {
        let dir = folder.path().join(format!("at-{at}"));
        let first = run(config.clone(), &dir, false, Some(at));
        assert!(first.summary.stopped, "stopped at {at}");
        let second = run(config.clone(), &dir, true, None);
        let both = [losses(&first.steps), losses(&second.steps)].concat();
        assert_eq!(both, losses(&whole.steps), "resumed at {at}: losses");
        assert_eq!(second.summary.parameter_hash, whole.summary.parameter_hash, "resumed at {at}");
        assert_eq!(second.summary.val_loss, whole.summary.val_loss, "resumed at {at}: validation");
        assert_eq!(second.summary.loss, whole.summary.loss, "resumed at {at}: epoch");
    }
}

#[test]
fn resuming_at_every_step_is_bit_exact() {
    for device in devices() {
        check_every_step(&RunConfig { steps: Some(9), ..config(device) });
    }
}

#[test]
fn resuming_an_accumulated_run_is_bit_exact() {
    check_every_step(&RunConfig { accumulate: 3, steps: Some(6), ..config("cpu") });
}

#[test]
fn resuming_a_run_with_averaged_weights_is_bit_exact() {
    for device in devices() {
        check_every_step(&RunConfig { steps: Some(4), ema: Some(0.8), ..config(device) });
    }
    let (steps, ema) = (Some(3), Some(0.8));
    check_every_step(&RunConfig { steps, ema, accumulate: 2, ..config("cpu") });
}

#[test]
fn resuming_a_run_with_mixed_batches_and_spared_norms_is_bit_exact() {
    let mut optimizer = OptimizerConfig::adamw();
    if let OptimizerConfig::AdamW { decay_norms_and_biases, .. } = &mut optimizer {
        *decay_norms_and_biases = false;
    }
    let (steps, mixup, cutmix) = (Some(4), Some(0.4), Some(1.0));
    check_every_step(&RunConfig { steps, optimizer, mixup, cutmix, ..config("cpu") });
}

#[test]
fn resuming_a_run_in_mixed_precision_is_bit_exact() {
    for device in devices() {
        check_every_step(&RunConfig { precision: "f16".into(), steps: Some(5), ..config(device) });
    }
}

#[test]
fn neither_workers_nor_slots_nor_lanes_change_the_result() {
    for device in devices() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let hash = |name: &str, config: RunConfig| {
            run(config, &folder.path().join(name), false, None).summary.parameter_hash
        };
        let one = hash("one", RunConfig { workers: 1, ..config(device) });
        assert_eq!(
            one,
            hash("four", RunConfig { workers: 4, ..config(device) }),
            "{device}: workers"
        );
        assert_eq!(
            one,
            hash("five", RunConfig { slots: Some(5), ..config(device) }),
            "{device}: slots"
        );
        assert_eq!(one, hash("sync", RunConfig { sync: true, ..config(device) }), "{device}: sync");
        assert_ne!(one, hash("seed", RunConfig { seed: 8, ..config(device) }), "{device}: seed");
    }
}
