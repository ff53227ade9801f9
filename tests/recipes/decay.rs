//! Weight decay with and without norms and biases.

use inflight::nn::optimizers::OptimizerConfig;
use inflight::testing::assert_close;
use inflight::train::Parameter;
use inflight::{RunConfig, Trainer};

use crate::common::{config, devices, model, rows};

const LR: f64 = 0.01;
const DECAY: f64 = 2.0;

/// The parameters after so many steps, sorted by name.
fn train(device: &str, steps: u64, weight_decay: f64, all: bool) -> Vec<Parameter> {
    let mut optimizer = OptimizerConfig::adamw();
    if let OptimizerConfig::AdamW { weight_decay: decay, decay_norms_and_biases, .. } =
        &mut optimizer
    {
        (*decay, *decay_norms_and_biases) = (weight_decay, all);
    }
    let config =
        RunConfig { optimizer, steps: Some(steps), lr: Some(LR), accumulate: 2, ..config(device) };
    let source = rows(100);
    let trainer = Trainer::builder(model(source.spec()), source).config(config);
    let trainer = trainer.start().expect("the run starts");
    pollster::block_on(trainer.fit()).expect("the run succeeds");
    let mut parameters = pollster::block_on(trainer.parameters()).expect("parameters");
    parameters.sort_by(|a, b| a.name.cmp(&b.name));
    parameters
}

/// AdamW's decay is a term of its own, so after one step it is all that differs.
#[test]
fn norms_and_biases_can_be_spared() {
    for device in devices() {
        let none = train(device, 1, 0.0, true);
        let spared = train(device, 1, DECAY, false);
        let decayed = train(device, 1, DECAY, true);
        for ((none, spared), decayed) in none.iter().zip(&spared).zip(&decayed) {
            println!("{device}: {}", none.name);
            match none.shape.len() {
                1 => assert_eq!(spared.values, none.values),
                _ => assert_close(&spared.values, &decayed.values, 1e-7, 1e-6),
            }
        }
        // Weights of norms are about 1, so that they show their decay.
        let norm = |parameters: &[Parameter]| {
            let norm = parameters.iter().find(|p| p.name == "net.1.weight");
            norm.expect("a batch norm").values.clone()
        };
        let expected: Vec<f64> = norm(&none).iter().map(|&x| f64::from(x) - LR * DECAY).collect();
        assert_close(&norm(&decayed), &expected, 1e-6, 0.0);
    }
}

#[test]
fn nothing_to_decay_is_the_same_run_either_way() {
    assert_eq!(train("cpu", 3, 0.0, true), train("cpu", 3, 0.0, false));
}
