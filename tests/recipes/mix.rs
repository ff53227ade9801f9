//! Mixup and cutmix in a run: the same on every repeat and resume, in training only, and learning goes on.

use std::sync::Arc;

use crate::common::{CLASSES, config, devices, model, rows};
use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::nn::layers::Layer;
use inflight::nn::sequential::Sequential;
use inflight::source::Resident;
use inflight::source::resident::{Inputs, Targets};
use inflight::train::event::{Event, Summary};
use inflight::{Result, RunConfig, Trainer};

/// Each step's loss, and the summary.
fn run(config: &RunConfig) -> (Vec<f64>, Summary) {
    let source = rows(100);
    let builder = Trainer::builder(model(source.spec()), source).validation(rows(30));
    let trainer = builder.config(config.clone()).start().expect("the run starts");
    let events = trainer.queue(1000);
    let summary = pollster::block_on(trainer.fit()).expect("the run succeeds");
    let losses = events.iter().filter_map(|event| match event.expect("no failure") {
        Event::Step(step) => Some(step.loss),
        _ => None,
    });
    (losses.collect(), summary)
}

const MIXINGS: [(Option<f64>, Option<f64>); 3] =
    [(Some(0.4), None), (None, Some(1.0)), (Some(0.4), Some(1.0))];

#[test]
fn devices_agree_and_a_repeat_has_the_same_bits() {
    for (mixup, cutmix) in MIXINGS {
        let mut of_devices = Vec::new();
        for device in devices() {
            let config = RunConfig { mixup, cutmix, steps: Some(6), ..config(device) };
            let (losses, summary) = run(&config);
            let (again, repeated) =
                run(&RunConfig { workers: 1, slots: Some(2), ..config.clone() });
            assert_eq!(losses, again, "{device}");
            assert_eq!(summary.parameter_hash, repeated.parameter_hash, "{device}");
            let (plain, _) = run(&RunConfig { mixup: None, cutmix: None, ..config });
            assert_ne!(losses, plain, "{device}");
            of_devices.push(losses);
        }
        // Another box or share would show at once; rounding shows little in so few steps.
        let first = of_devices[0].clone();
        for losses in &of_devices {
            inflight::testing::assert_close(losses, &first, 0.0, 1e-3);
        }
    }
}

#[test]
fn a_model_learns_from_mixed_batches_and_is_evaluated_on_whole_ones() {
    let config =
        RunConfig { mixup: Some(0.4), cutmix: Some(1.0), steps: Some(60), ..config("cpu") };
    let (losses, summary) = run(&config);
    let accuracy = summary.val_accuracy.expect("a validation set");
    let last = losses[50..].iter().sum::<f64>() / 10.0;
    let val_loss = summary.val_loss.expect("a validation set");
    assert!(accuracy > 0.9 && val_loss < last, "{accuracy}, {val_loss} and {last}");
}

fn start(input_shape: &[usize], targets: Targets, config: RunConfig) -> Result<Trainer> {
    let target = match &targets {
        Targets::Classes(_) => TargetSpec::Class { classes: CLASSES },
        _ => TargetSpec::Values { len: 1 },
    };
    let (input_shape, input_dtype) = (input_shape.to_vec(), DType::F32);
    let spec = SampleSpec { input_shape, input_dtype, target };
    let values = vec![0.5; 8 * spec.input_shape.iter().product::<usize>()];
    let source = Resident::new(spec.clone(), Default::default(), Inputs::Floats(values), targets)?;
    let last = if spec.classes().is_some() { Layer::classes() } else { Layer::linear(1) };
    let model = Sequential::new(vec![Layer::flatten(), last], &spec)?;
    Trainer::builder(model, Arc::new(source)).config(config).start()
}

#[test]
fn what_cannot_be_mixed_is_an_error_of_the_configuration() {
    let config = |mixup, cutmix| RunConfig { mixup, cutmix, steps: Some(2), ..config("cpu") };
    let refusal = |started: Result<Trainer>| {
        let error = started.map(|_| ()).expect_err("must be refused");
        assert_eq!(error.kind().exit_code(), 2);
        error.to_string()
    };
    let classes = || Targets::Classes(vec![0; 8]);
    let values = || Targets::Values(vec![0.0; 8]);
    let image = [2, 3, 4];
    assert!(refusal(start(&[6], classes(), config(None, Some(1.0)))).contains("--cutmix"));
    assert!(refusal(start(&image, values(), config(Some(1.0), None))).contains("--mixup"));
    assert!(refusal(start(&image, classes(), config(Some(-1.0), None))).contains("--mixup"));
    for (shape, config) in
        [(&image[..], config(Some(1.0), Some(1.0))), (&[6], config(Some(1.0), None))]
    {
        let trainer = start(shape, classes(), config).expect("can be mixed");
        pollster::block_on(trainer.fit()).expect("the run succeeds");
    }
}
