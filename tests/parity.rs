//! Training follows PyTorch: from the same weights over the same batches, the same losses step for step.
//!
//! `parity/reference.json` holds PyTorch's losses and what they were made with; `parity/make_reference.py`
//! makes it and says why its curves have the learning rates and lengths that they have.

mod common;

use std::sync::Arc;

use common::devices;
use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::executor::Tune;
use inflight::nn::Module;
use inflight::nn::init::name_hash;
use inflight::nn::models::by_name;
use inflight::nn::optimizers::OptimizerConfig;
use inflight::nn::vit::{self, VisionTransformer};
use inflight::rng::Rng;
use inflight::source::resident::{Inputs, Resident, Targets};
use inflight::source::{self, OpenOptions, Source, SourceInfo};
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
    /// The size of a vision transformer; other models are named.
    size: Option<VitSize>,
    /// Trained on images of noise; else on Fashion-MNIST.
    noise: Option<Noise>,
    lr: f64,
    optimizer: OptimizerConfig,
    losses: Vec<f64>,
}

#[derive(Clone, Copy, Deserialize)]
struct VitSize {
    depth: usize,
    width: usize,
    heads: usize,
}

impl Curve {
    fn model(&self, spec: &SampleSpec) -> Arc<dyn Module> {
        let Some(VitSize { depth, width, heads }) = self.size else {
            return by_name(&self.model, spec).expect("the model fits");
        };
        let size = vit::Size { depth, width, heads };
        Arc::new(VisionTransformer::new(size, spec).expect("the model fits"))
    }
}

#[derive(Deserialize)]
struct Noise {
    shape: Vec<usize>,
    batch_size: usize,
}

impl Noise {
    /// The images that `make_reference.py` makes by the same arithmetic.
    fn source(&self, seed: u64) -> Arc<dyn Source> {
        const LEN: usize = 10;
        let numbers = |name, below: f64, len| {
            let mut rng = Rng::keyed(&[seed, name_hash(name)]);
            std::iter::repeat_with(move || (below * rng.uniform()) as u8).take(len)
        };
        let len = LEN * self.shape.iter().product::<usize>();
        let images = Inputs::Bytes(numbers("images", 256.0, len).collect());
        let labels = Targets::Classes(numbers("labels", 10.0, LEN).map(u32::from).collect());
        let spec = SampleSpec {
            input_shape: self.shape.clone(),
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 10 },
        };
        let info = SourceInfo { mean: vec![0.5], std: vec![0.25], ..Default::default() };
        Arc::new(Resident::new(spec, info, images, labels).expect("lengths fit"))
    }
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("parity/reference.json")).expect("the reference is valid")
}

/// Trains as the reference did and returns each step's loss.
fn train(reference: &Reference, curve: &Curve, device: &str) -> Vec<f64> {
    let steps = curve.losses.len();
    let data = match &curve.noise {
        Some(noise) => noise.source(reference.seed),
        None => {
            let offline = OpenOptions { offline: true, ..Default::default() };
            source::open("fashion-mnist-10k", &offline).expect("the data set is in-tree").train
        }
    };
    let model = curve.model(data.spec());
    let config = RunConfig {
        device: device.into(),
        steps: Some(steps as u64),
        seed: reference.seed,
        batch_size: curve.noise.as_ref().map_or(reference.batch_size, |noise| noise.batch_size),
        lr: Some(curve.lr),
        optimizer: curve.optimizer,
        shuffle: false,
        tune: Tune::Off,
        ..Default::default()
    };
    let trainer = Trainer::builder(model, data).config(config).start().expect("starts");
    let events = trainer.queue(steps + 8);
    pollster::block_on(trainer.fit()).expect("the run succeeds");
    let losses = events.iter().filter_map(|event| match event.expect("no failure") {
        Event::Step(step) => Some(step.loss),
        _ => None,
    });
    losses.collect()
}

/// Trains the curves of some models on `device` and compares, telling the largest relative difference of each.
fn follow(device: &str, models: &[&str], tolerance: f64) {
    let reference = reference();
    let curves = || reference.curves.iter().filter(|curve| models.contains(&curve.model.as_str()));
    assert!(curves().count() >= models.len(), "a model of {models:?} has no curve");
    for curve in curves() {
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
    follow("cpu", &["mlp", "cnn"], 1e-4);
}

#[test]
fn shaders_follow_pytorch() {
    if devices().contains(&"llvmpipe") {
        follow("llvmpipe", &["mlp", "cnn"], 1e-3);
    }
}

#[test]
fn twins_follow_torchvision() {
    follow("cpu", &["resnet18", "resnet50"], 1e-4);
}

#[test]
fn a_vision_transformer_follows_pytorch() {
    follow("cpu", &["vit"], 1e-5);
    if devices().contains(&"llvmpipe") {
        follow("llvmpipe", &["vit"], 1e-4);
    }
}

#[test]
fn shaders_follow_torchvision() {
    if devices().contains(&"llvmpipe") {
        follow("llvmpipe", &["resnet18"], 1e-3);
    }
}
