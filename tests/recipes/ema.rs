//! The moving average of the weights: what it is, and that it is what is evaluated and saved.

use std::path::Path;

use crate::common::{config, devices, model, rows};
use inflight::graph::Arena;
use inflight::testing::assert_close;
use inflight::train::Parameter;
use inflight::train::checkpoint::{self, Checkpoint};
use inflight::train::evaluate::{EvalOptions, eval_program, evaluate};
use inflight::train::event::Summary;
use inflight::{RunConfig, Trainer};

const DECAY: f64 = 0.7;

fn start(config: RunConfig, dir: &Path) -> Trainer {
    let source = rows(100);
    let builder = Trainer::builder(model(source.spec()), source).validation(rows(30));
    builder.config(config).run_dir(dir).start().expect("the run starts")
}

fn saved(dir: &Path) -> Checkpoint {
    checkpoint::latest(dir).expect("a checkpoint").checkpoint
}

/// The average by its definition: the first step's parameters, then a share of each later one's.
fn average(before: Option<Vec<Vec<f64>>>, parameters: &[Parameter]) -> Vec<Vec<f64>> {
    let wide = |p: &Parameter| p.values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let Some(mut average) = before else { return parameters.iter().map(wide).collect() };
    for (average, parameter) in average.iter_mut().zip(parameters) {
        for (average, p) in average.iter_mut().zip(wide(parameter)) {
            *average = DECAY * *average + (1.0 - DECAY) * p;
        }
    }
    average
}

#[test]
fn the_saved_model_is_the_average_of_all_steps() {
    for device in devices() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = RunConfig { steps: Some(6), ema: Some(DECAY), ..config(device) };
        let batch_size = config.batch_size;
        let trainer = start(config, dir.path());
        let mut expected = None;
        for _ in 0..6 {
            pollster::block_on(trainer.step()).expect("the step succeeds");
            let parameters = pollster::block_on(trainer.parameters()).expect("parameters");
            expected = Some(average(expected, &parameters));
        }
        pollster::block_on(trainer.fit()).expect("the run ends");
        let source = rows(30);
        let program = eval_program(&model(source.spec()), source.spec(), source.info(), batch_size)
            .expect("compiles");
        let weights = saved(dir.path()).weights.place(&program).expect("fits");
        let found = weights.iter().filter(|(arena, ..)| *arena == Arena::Params);
        let expected = expected.expect("six steps");
        assert_eq!(found.clone().count(), expected.len());
        for ((_, variable, values), expected) in found.zip(&expected) {
            println!("{device}: {}", variable.name);
            assert_close(values, expected, 1e-6, 1e-6);
        }
    }
}

#[test]
fn what_is_evaluated_is_what_is_saved() {
    for device in devices() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let run = |name: &str, ema| -> (Summary, f64) {
            let config = RunConfig { ema, ..config(device) };
            let batch_size = config.batch_size;
            let dir = dir.path().join(name);
            let summary = pollster::block_on(start(config, &dir).fit()).expect("the run succeeds");
            let options = EvalOptions { device: device.into(), batch_size, ..Default::default() };
            let (weights, source) = (saved(&dir).weights, rows(30));
            let info = source.info().clone();
            let found = evaluate(&model(source.spec()), &weights, source, &info, &options);
            (summary, found.expect("evaluates").loss)
        };
        let (plain, plain_loss) = run("plain", None);
        let (averaged, averaged_loss) = run("averaged", Some(DECAY));
        // Averaging changes nothing about the training itself.
        assert_eq!(plain.parameter_hash, averaged.parameter_hash);
        assert_eq!((plain.loss, plain.val_loss), (averaged.loss, Some(plain_loss)));
        assert_eq!(averaged.val_loss, Some(averaged_loss));
        assert_ne!(plain_loss, averaged_loss);
    }
}
