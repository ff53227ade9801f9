//! What must not move from step to step: the number of device objects, and the parameters when a gradient is
//! not finite.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{config, devices, model, rows};
use inflight::batch::{DType, SampleSpec, StepHeader, TargetSpec};
use inflight::executor::Wants;
use inflight::graph::plan::Pass;
use inflight::nn::models;
use inflight::source::{Sample, Source, SourceInfo, Target};
use inflight::{ErrorKind, Result, RunConfig, Trainer, device};

#[test]
fn no_device_object_is_created_per_step() {
    for name in devices() {
        let source = rows(64);
        let builder = Trainer::builder(model(source.spec()), source).config(config(name));
        let program = Arc::new(builder.program().expect("compiles"));
        let mut executor = device::open(name, program, 3).expect("opens");
        let mut slots = executor.take_slots().expect("a ring");
        let made = executor.objects_created();
        assert!(made > 0, "{name}: creating is counted");
        for step in 0..20 {
            let mut slot = slots.pop().expect("a free slot");
            slot.write_header(&StepHeader { count: 16, step, lr: 0.01, ..Default::default() });
            executor.submit(Pass::Train, slot, Wants::default()).expect("submits");
            let done = executor.collect(Duration::from_secs(60)).expect("no fault");
            slots.push(done.expect("a result within a minute").slot);
        }
        assert_eq!(executor.objects_created(), made, "{name}");
    }
}

/// Passes are recorded before they are asked for; another one than was expected must come out as asked.
#[test]
fn each_pass_is_the_one_that_was_asked_for() {
    let plain = (Pass::Eval, Wants::default());
    let output = (Pass::Eval, Wants { output: true, ..Wants::default() });
    let train = (Pass::Train, Wants::default());
    let snapshot = (Pass::Train, Wants { snapshot: true, ..Wants::default() });
    let asked = [train, train, output, train, plain, plain, output, snapshot, train, train, plain];
    let run = |name: &str| -> Vec<[f32; 4]> {
        let source = rows(64);
        let builder = Trainer::builder(model(source.spec()), source).config(config(name));
        let program = Arc::new(builder.program().expect("compiles"));
        let mut executor = device::open(name, program, 2).expect("opens");
        let mut slots = executor.take_slots().expect("a ring");
        let pass = |(step, (pass, wants)): (usize, (Pass, Wants))| {
            let mut slot = slots.remove(0);
            let header = StepHeader {
                count: 16,
                step: step as u32,
                lr: 0.01,
                weight: 1.0,
                ..Default::default()
            };
            slot.write_header(&header);
            executor.submit(pass, slot, wants).expect("submits");
            let done = executor.collect(Duration::from_secs(60)).expect("no fault");
            let done = done.expect("a result within a minute");
            assert_eq!((done.pass, done.output.is_some()), (pass, wants.output), "{name} {step}");
            assert_eq!(done.snapshot.is_some(), wants.snapshot, "{name} {step}");
            slots.push(done.slot);
            done.metrics
        };
        asked.into_iter().enumerate().map(pass).collect()
    };
    let twins = run("cpu");
    for name in devices() {
        for (step, (found, expected)) in run(name).iter().zip(&twins).enumerate() {
            for (found, expected) in found.iter().zip(expected) {
                let near = (found - expected).abs() <= 1e-4 * expected.abs().max(1.0);
                assert!(near, "{name}, pass {step}: {found} for {expected}");
            }
        }
    }
}

/// Numbers with a NaN in every sample from `poisoned_from` on.
struct Poisoned {
    poisoned_from: usize,
    spec: SampleSpec,
    info: SourceInfo,
}

impl Source for Poisoned {
    fn len(&self) -> usize {
        400
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let first = if index >= self.poisoned_from { f32::NAN } else { 1.0 };
        scratch.clear();
        scratch.extend([first, index as f32 / 400.0].iter().flat_map(|x| x.to_le_bytes()));
        Ok(Sample { input: scratch, target: Target::Class((index % 2) as u32) })
    }
}

#[test]
fn a_nan_leaves_the_parameters_alone_and_ten_in_a_row_end_the_run() {
    for name in devices() {
        let run = |steps| {
            let source = Arc::new(Poisoned {
                poisoned_from: 3 * 16,
                spec: SampleSpec {
                    input_shape: vec![2],
                    input_dtype: DType::F32,
                    target: TargetSpec::Class { classes: 2 },
                },
                info: SourceInfo::default(),
            });
            let model = models::by_name("mlp", &source.spec).expect("fits");
            let config = RunConfig { steps: Some(steps), shuffle: false, ..config(name) };
            let trainer = Trainer::builder(model, source).config(config).start().expect("starts");
            pollster::block_on(trainer.fit())
        };
        let clean = run(3).expect("three clean steps");
        let poisoned = run(8).expect("five bad steps are not yet too many");
        assert_eq!((clean.skipped, poisoned.skipped), (0, 5), "{name}");
        assert_eq!(clean.parameter_hash, poisoned.parameter_hash, "{name}");
        let error = run(20).expect_err("ten bad steps in a row");
        assert_eq!(error.kind(), ErrorKind::Diverged, "{name}");
        assert!(error.to_string().contains("step 13"), "{name}: {error}");
    }
}
