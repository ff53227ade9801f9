//! A training step in Burn: `mlp`, `cnn` and `resnet18` as inflight has them, the batch already on the device.
//!
//! usage: `burn_step [wgpu|webgpu|flex] [mlp|cnn|resnet18] [BATCH] [STEPS] [WARM-UP]`; prints one line of JSON. The
//! steps of warm-up, in which Burn tunes its kernels, are not timed. Kept out of inflight's own build.

use std::time::Instant;

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d, Relu};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::prelude::*;
use burn::tensor::{Distribution, Int};

/// 784 to 512 to 512 to 10.
#[derive(Module, Debug)]
struct Mlp {
    a: Linear,
    b: Linear,
    c: Linear,
    relu: Relu,
}

impl Mlp {
    const INPUT: [usize; 3] = [1, 28, 28];

    fn new(d: &Device) -> Self {
        let linear = |i, o| LinearConfig::new(i, o).init(d);
        Self { a: linear(784, 512), b: linear(512, 512), c: linear(512, 10), relu: Relu::new() }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.relu.forward(self.a.forward(x.flatten::<2>(1, 3)));
        self.c.forward(self.relu.forward(self.b.forward(x)))
    }
}

/// Two convolutions with pooling, two linear layers.
#[derive(Module, Debug)]
struct Cnn {
    a: Conv2d,
    b: Conv2d,
    pool: MaxPool2d,
    c: Linear,
    d: Linear,
    relu: Relu,
}

impl Cnn {
    const INPUT: [usize; 3] = [1, 28, 28];

    fn new(d: &Device) -> Self {
        Self {
            a: conv([1, 16], 3, 1).with_bias(true).init(d),
            b: conv([16, 32], 3, 1).with_bias(true).init(d),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            c: LinearConfig::new(1568, 128).init(d),
            d: LinearConfig::new(128, 10).init(d),
            relu: Relu::new(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(self.relu.forward(self.a.forward(x)));
        let x = self.pool.forward(self.relu.forward(self.b.forward(x)));
        self.d.forward(self.relu.forward(self.c.forward(x.flatten::<2>(1, 3))))
    }
}

/// Two 3 × 3 convolutions beside a shortcut.
#[derive(Module, Debug)]
struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    downsample: Option<(Conv2d, BatchNorm)>,
    relu: Relu,
}

impl Block {
    fn new([from, to]: [usize; 2], stride: usize, d: &Device) -> Self {
        let norm = || BatchNormConfig::new(to).init(d);
        let shortcut = || (conv([from, to], 1, stride).init(d), norm());
        Self {
            conv1: conv([from, to], 3, stride).init(d),
            bn1: norm(),
            conv2: conv([to, to], 3, 1).init(d),
            bn2: norm(),
            downsample: (stride > 1 || from != to).then(shortcut),
            relu: Relu::new(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.relu.forward(self.bn1.forward(self.conv1.forward(x.clone())));
        let y = self.bn2.forward(self.conv2.forward(y));
        let x = match &self.downsample {
            Some((conv, norm)) => norm.forward(conv.forward(x)),
            None => x,
        };
        self.relu.forward(y + x)
    }
}

/// torchvision's `resnet18` with a 3 × 3 stem and no max-pool, for 32 px and ten classes.
#[derive(Module, Debug)]
struct ResNet18 {
    conv1: Conv2d,
    bn1: BatchNorm,
    blocks: Vec<Block>,
    pool: AdaptiveAvgPool2d,
    fc: Linear,
    relu: Relu,
}

impl ResNet18 {
    const INPUT: [usize; 3] = [3, 32, 32];

    fn new(d: &Device) -> Self {
        let stages = [([64, 64], 1), ([64, 128], 2), ([128, 256], 2), ([256, 512], 2)];
        let pair = |([from, to], stride): ([usize; 2], usize)| {
            [Block::new([from, to], stride, d), Block::new([to, to], 1, d)]
        };
        Self {
            conv1: conv([3, 64], 3, 1).init(d),
            bn1: BatchNormConfig::new(64).init(d),
            blocks: stages.into_iter().flat_map(pair).collect(),
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            fc: LinearConfig::new(512, 10).init(d),
            relu: Relu::new(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.relu.forward(self.bn1.forward(self.conv1.forward(x)));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.fc.forward(self.pool.forward(x).flatten::<2>(1, 3))
    }
}

/// A square convolution that keeps the size but for its stride.
fn conv(channels: [usize; 2], side: usize, stride: usize) -> Conv2dConfig {
    let pad = side / 2;
    Conv2dConfig::new(channels, [side, side])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
}

/// What is asked for.
struct Job {
    backend: String,
    name: String,
    batch: usize,
    steps: usize,
    warm_up: usize,
}

macro_rules! run {
    ($model:ty, $device:expr, $job:expr) => {{
        let (d, job) = ($device, $job);
        let started = Instant::now();
        let mut model = <$model>::new(&d);
        let mut optim = AdamWConfig::new().init();
        let [c, h, w] = <$model>::INPUT;
        let x = Tensor::<4>::random([job.batch, c, h, w], Distribution::Default, &d);
        let y = Tensor::<1, Int>::zeros([job.batch], &d);
        let loss_of = CrossEntropyLossConfig::new().init(&d);
        let (mut first_s, mut timed, mut last) = (0.0, Instant::now(), 0.0f32);
        let all = job.warm_up + job.steps;
        for i in 0..all {
            if i == job.warm_up {
                d.sync().unwrap();
                timed = Instant::now();
            }
            let loss = loss_of.forward(model.forward(x.clone()), y.clone());
            if i == 0 || i + 1 == all {
                last = loss.clone().into_scalar::<f32>();
            }
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            model = optim.step(1e-3, model, grads);
            if i == 0 {
                d.sync().unwrap();
                first_s = started.elapsed().as_secs_f64();
            }
        }
        d.sync().unwrap();
        let s = timed.elapsed().as_secs_f64() / job.steps as f64;
        println!(
            "{{\"framework\":\"burn 0.22\",\"device\":\"{}\",\"model\":\"{}\",\"batch\":{},\"ms_per_step\":{:.3},\"per_s\":{:.1},\"first_step_s\":{first_s:.2},\"loss\":{last:.5}}}",
            job.backend, job.name, job.batch, s * 1e3, job.batch as f64 / s
        );
    }};
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let arg = |i: usize, other: &str| args.get(i).cloned().unwrap_or_else(|| other.to_string());
    let count = |i: usize, other: &str| -> usize { arg(i, other).parse().expect("a number") };
    let job = Job {
        backend: arg(1, "wgpu"),
        name: arg(2, "mlp"),
        batch: count(3, "128"),
        steps: count(4, "30"),
        warm_up: count(5, "10"),
    };
    let device = match job.backend.as_str() {
        "flex" => Device::flex(),
        "webgpu" => Device::webgpu(Default::default()),
        _ => Device::wgpu(Default::default()),
    }
    .autodiff();
    match job.name.as_str() {
        "mlp" => run!(Mlp, device, job),
        "cnn" => run!(Cnn, device, job),
        _ => run!(ResNet18, device, job),
    }
}
