//! Training follows PyTorch: from the same weights over the same batches, the same losses step for step.
//!
//! `parity/reference.json` holds PyTorch's losses and what they were made with; `parity/make_reference.py`
//! makes it and says why its curves have the learning rates and lengths that they have.

mod common;

use common::devices;
use inflight::nn::models::by_name;
use inflight::nn::optimizers::OptimizerConfig;
use inflight::source::{self, OpenOptions};
use inflight::testing::assert_close;
use inflight::train::event::Event;
use inflight::{RunConfig, Trainer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    seed: u64,
    batch_size: usize,
    curves: Vec<Curve>,
}

#[derive(Deserialize)]
struct Curve {
    model: String,
    lr: f64,
    optimizer: OptimizerConfig,
    losses: Vec<f64>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("parity/reference.json")).expect("the reference is valid")
}

/// Trains as the reference did and returns each step's loss.
fn train(reference: &Reference, curve: &Curve, device: &str) -> Vec<f64> {
    let steps = curve.losses.len();
    let offline = OpenOptions { offline: true, ..Default::default() };
    let data = source::open("fashion-mnist-10k", &offline).expect("the data set is in-tree");
    let model = by_name(&curve.model, data.train.spec()).expect("the model fits");
    let config = RunConfig {
        device: device.into(),
        steps: Some(steps as u64),
        seed: reference.seed,
        batch_size: reference.batch_size,
        lr: Some(curve.lr),
        optimizer: curve.optimizer,
        shuffle: false,
        ..Default::default()
    };
    let trainer = Trainer::builder(model, data.train).config(config).start().expect("starts");
    let events = trainer.queue(steps + 8);
    pollster::block_on(trainer.fit()).expect("the run succeeds");
    let losses = events.iter().filter_map(|event| match event.expect("no failure") {
        Event::Step(step) => Some(step.loss),
        _ => None,
    });
    losses.collect()
}

/// Trains every curve on `device` and compares, telling the largest relative difference of each.
fn follow(device: &str, tolerance: f64) {
    let reference = reference();
    for curve in &reference.curves {
        let steps = curve.losses.len();
        let losses = train(&reference, curve, device);
        let apart = losses.iter().zip(&curve.losses).map(|(a, b)| (a - b).abs() / b);
        let apart = apart.fold(0.0, f64::max);
        let Curve { model, lr, optimizer, .. } = curve;
        eprintln!("{device}: {model} {} lr {lr}: {apart:.1e} over {steps} steps", optimizer.name());
        assert_close(&losses, &curve.losses, 0.0, tolerance);
    }
}

#[test]
fn twins_follow_pytorch() {
    follow("cpu", 1e-4);
}

#[test]
fn shaders_follow_pytorch() {
    if devices().contains(&"llvmpipe") {
        follow("llvmpipe", 1e-3);
    }
}
