//! What the integration tests share: a small learnable data set, a model with every kind of state, and the
//! devices to run on.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::executor::Tune;
use inflight::nn::layers::Layer;
use inflight::nn::sequential::Sequential;
use inflight::rng::Rng;
use inflight::source::{Sample, Source, SourceInfo, Target};
use inflight::{Error, Result, RunConfig};

/// Small images whose class shows in their brightest row; one sample can be made to fail.
pub struct Rows {
    pub len: usize,
    pub fails_at: Option<usize>,
    pub panics_at: Option<usize>,
    pub label_at: Option<(usize, u32)>,
    pub reads: AtomicUsize,
    pub spec: SampleSpec,
    pub info: SourceInfo,
}

pub const CLASSES: usize = 4;

impl Rows {
    pub fn new(len: usize) -> Self {
        Self {
            len,
            fails_at: None,
            panics_at: None,
            label_at: None,
            reads: AtomicUsize::new(0),
            spec: SampleSpec {
                input_shape: vec![1, 8, 8],
                input_dtype: DType::U8,
                target: TargetSpec::Class { classes: CLASSES },
            },
            info: SourceInfo { name: "rows".into(), ..Default::default() },
        }
    }
}

impl Source for Rows {
    fn len(&self) -> usize {
        self.len
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.fails_at == Some(index) {
            return Err(Error::data("rows.bin", "found 3 bytes, expected 64"));
        }
        assert!(self.panics_at != Some(index), "planted panic");
        let mut rng = Rng::keyed(&[index as u64]);
        let class = rng.below(CLASSES as u64) as usize;
        scratch.clear();
        scratch.extend((0..64).map(|_| rng.below(100) as u8));
        scratch[class * 16..class * 16 + 16].iter_mut().for_each(|byte| *byte += 100);
        let label = match self.label_at {
            Some((at, label)) if at == index => label,
            _ => class as u32,
        };
        Ok(Sample { input: scratch, target: Target::Class(label) })
    }
}

/// A model with convolution, batch norm (running statistics), dropout and layer norm.
pub fn model(spec: &SampleSpec) -> Sequential {
    let layers = vec![
        Layer::conv2d(4, 3, 1),
        Layer::batch_norm(),
        Layer::relu(),
        Layer::max_pool2d(2),
        Layer::flatten(),
        Layer::dropout(0.2),
        Layer::linear(16),
        Layer::layer_norm(),
        Layer::gelu(),
        Layer::classes(),
    ];
    Sequential::new(layers, spec).expect("the test model fits the test data")
}

/// Settings that every test starts from.
pub fn config(device: &str) -> RunConfig {
    RunConfig {
        device: device.into(),
        batch_size: 16,
        steps: Some(12),
        seed: 7,
        workers: 2,
        lr: Some(0.01),
        tune: Tune::Off,
        ..Default::default()
    }
}

pub fn rows(len: usize) -> Arc<dyn Source> {
    Arc::new(Rows::new(len))
}

/// The twins, and the software adapter where there is one. With REQUIRE_GPU=1 it must be there.
pub fn devices() -> Vec<&'static str> {
    let software = inflight::gpu::adapters().iter().any(|a| a.name.contains("llvmpipe"));
    if software {
        return vec!["cpu", "llvmpipe"];
    }
    assert!(std::env::var("REQUIRE_GPU").is_err(), "REQUIRE_GPU is set and there is no llvmpipe");
    eprintln!("SKIPPED on llvmpipe: there is no such adapter");
    vec!["cpu"]
}
