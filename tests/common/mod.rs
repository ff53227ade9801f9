//! What the integration tests share: a small learnable data set, a model with every kind of state, and the
//! devices to run on.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::executor::Tune;
use inflight::graph::op::Op;
use inflight::graph::{Graph, TensorId};
use inflight::nn::layers::Layer;
use inflight::nn::sequential::Sequential;
use inflight::nn::{Mode, Module};
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

/// The class of a row.
pub fn class_of(index: usize) -> u32 {
    Rng::keyed(&[index as u64]).below(CLASSES as u64) as u32
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

/// A small residual network: a stem with max pooling, a block over an identity, and one that halves the image and
/// projects what it skips (He et al., 2016).
pub struct Residual {
    /// Channels of the stem and the first block; the second has twice as many.
    pub width: usize,
}

impl Residual {
    fn conv(
        &self,
        g: &mut Graph,
        x: TensorId,
        name: &str,
        [out, kernel, stride]: [usize; 3],
    ) -> Result<TensorId> {
        g.set_scope(name);
        let (stride, padding) = (stride.into(), (kernel / 2).into());
        let kernel = kernel.into();
        let conv =
            Layer::Conv2d { name: None, out, kernel, stride, padding, groups: 1, bias: false };
        conv.build(g, x, Mode::Train)
    }

    fn norm(&self, g: &mut Graph, x: TensorId, name: &str, mode: Mode) -> Result<TensorId> {
        g.set_scope(name);
        Layer::batch_norm().build(g, x, mode)
    }

    fn block(
        &self,
        g: &mut Graph,
        x: TensorId,
        name: &str,
        [out, stride]: [usize; 2],
        mode: Mode,
    ) -> Result<TensorId> {
        let at = |part: &str| format!("{name}.{part}");
        let y = self.conv(g, x, &at("conv1"), [out, 3, stride])?;
        let y = self.norm(g, y, &at("bn1"), mode)?;
        let y = g.push_one(Op::Relu, &[y])?;
        let y = self.conv(g, y, &at("conv2"), [out, 3, 1])?;
        let y = self.norm(g, y, &at("bn2"), mode)?;
        let mut skipped = x;
        if stride > 1 {
            skipped = self.conv(g, x, &at("downsample.0"), [out, 1, stride])?;
            skipped = self.norm(g, skipped, &at("downsample.1"), mode)?;
        }
        let y = g.push_one(Op::Add, &[y, skipped])?;
        g.push_one(Op::Relu, &[y])
    }
}

impl Module for Residual {
    fn build(&self, g: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        let y = self.conv(g, x, "conv1", [self.width, 3, 1])?;
        let y = self.norm(g, y, "bn1", mode)?;
        let y = g.push_one(Op::Relu, &[y])?;
        let y = Layer::max_pool2d(2).build(g, y, mode)?;
        let y = self.block(g, y, "layer1.0", [self.width, 1], mode)?;
        let y = self.block(g, y, "layer2.0", [2 * self.width, 2], mode)?;
        let y = Layer::avg_pool2d(g.shape(y)[2]).build(g, y, mode)?;
        let y = Layer::flatten().build(g, y, mode)?;
        g.set_scope("fc");
        Layer::linear(CLASSES).build(g, y, mode)
    }
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
