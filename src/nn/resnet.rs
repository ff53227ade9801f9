//! Residual networks (He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", 2016), as
//! torchvision builds them: its names, shapes and initial distributions, so that its weights load.

use super::build::{self, Conv2d, Start, within};
use super::sequential::{sample_input, target_width};
use super::{Mode, Module};
use crate::batch::SampleSpec;
use crate::error::Result;
use crate::graph::op::{ConvGeometry, Op, PoolGeometry};
use crate::graph::{Graph, TensorId};

/// Images of at most this many pixels a side keep their resolution up to the first residual stage, as is
/// common for CIFAR.
const SMALL_SIDE_MAX: usize = 64;
const MOMENTUM: f64 = 0.1;
const EPS: f64 = 1e-5;

/// Which residual network, by its number of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Two basic blocks a stage.
    ResNet18,
    /// Three, four, six and three basic blocks.
    ResNet34,
    /// Three, four, six and three bottlenecks, their stride in the 3×3 convolution.
    ResNet50,
}

impl Depth {
    /// Blocks of the four stages.
    fn blocks(self) -> [usize; 4] {
        match self {
            Depth::ResNet18 => [2, 2, 2, 2],
            Depth::ResNet34 | Depth::ResNet50 => [3, 4, 6, 3],
        }
    }

    fn is_bottlenecked(self) -> bool {
        self == Depth::ResNet50
    }
}

/// `torchvision.models.resnet18`, `resnet34` or `resnet50`: a stem, four stages of residual blocks, global
/// average pooling and a linear layer `fc`.
///
/// The stem is a 7×7 convolution with stride 2 and a 3×3 max-pool with stride 2; for images of at most 64
/// pixels a side it is a 3×3 convolution with stride 1, and there is no max-pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResNet {
    depth: Depth,
    out: usize,
}

impl ResNet {
    /// The network for samples of `spec`, with an output a class.
    ///
    /// # Errors
    /// When the samples are no images `[channels, height, width]`.
    pub fn new(depth: Depth, spec: &SampleSpec) -> Result<Self> {
        let model = Self { depth, out: target_width(spec) };
        let mut graph = Graph::new();
        let x = sample_input(&mut graph, spec, 1);
        model.build(&mut graph, x, Mode::Train)?;
        Ok(model)
    }
}

impl Module for ResNet {
    fn build(&self, graph: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        let mut y = stem(graph, x, mode)?;
        for (stage, blocks) in self.depth.blocks().into_iter().enumerate() {
            for index in 0..blocks {
                let width = 64 << stage;
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                let name = format!("layer{}.{index}", stage + 1);
                y = within(graph, &name, |graph| match self.depth.is_bottlenecked() {
                    false => basic_block(graph, y, width, stride, mode),
                    true => bottleneck(graph, y, width, stride, mode),
                })?;
            }
        }
        y = within(graph, "avgpool", |graph| build::global_avg_pool(graph, y))?;
        within(graph, "fc", |graph| build::linear(graph, y, self.out, true, Start::FanIn))
    }
}

fn stem(graph: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
    let small = graph.shape(x).iter().skip(2).all(|&side| side <= SMALL_SIDE_MAX);
    let (kernel, stride) = if small { (3, 1) } else { (7, 2) };
    let y = conv(graph, "conv1", x, 64, kernel, stride)?;
    let y = norm(graph, "bn1", y, mode)?;
    let y = relu(graph, y)?;
    if small {
        return Ok(y);
    }
    let geometry = PoolGeometry { kernel: [3, 3], stride: [2, 2], padding: [1, 1] };
    within(graph, "maxpool", |graph| build::max_pool2d(graph, y, geometry))
}

/// Two 3×3 convolutions beside a shortcut.
fn basic_block(
    graph: &mut Graph,
    x: TensorId,
    width: usize,
    stride: usize,
    mode: Mode,
) -> Result<TensorId> {
    let y = conv(graph, "conv1", x, width, 3, stride)?;
    let y = norm(graph, "bn1", y, mode)?;
    let y = relu(graph, y)?;
    let y = conv(graph, "conv2", y, width, 3, 1)?;
    let y = norm(graph, "bn2", y, mode)?;
    add_shortcut(graph, x, y, stride, mode)
}

/// A 3×3 convolution between two 1×1 ones, of which the last has four times as many channels.
fn bottleneck(
    graph: &mut Graph,
    x: TensorId,
    width: usize,
    stride: usize,
    mode: Mode,
) -> Result<TensorId> {
    let y = conv(graph, "conv1", x, width, 1, 1)?;
    let y = norm(graph, "bn1", y, mode)?;
    let y = relu(graph, y)?;
    let y = conv(graph, "conv2", y, width, 3, stride)?;
    let y = norm(graph, "bn2", y, mode)?;
    let y = relu(graph, y)?;
    let y = conv(graph, "conv3", y, 4 * width, 1, 1)?;
    let y = norm(graph, "bn3", y, mode)?;
    add_shortcut(graph, x, y, stride, mode)
}

/// `relu(y + x)`, where `x` goes through a 1×1 convolution and a batch norm if the shapes differ.
fn add_shortcut(
    graph: &mut Graph,
    x: TensorId,
    y: TensorId,
    stride: usize,
    mode: Mode,
) -> Result<TensorId> {
    let channels = graph.shape(y)[1];
    let shortcut = if stride != 1 || graph.shape(x)[1] != channels {
        let projected = conv(graph, "downsample.0", x, channels, 1, stride)?;
        norm(graph, "downsample.1", projected, mode)?
    } else {
        x
    };
    let sum = graph.push_one(Op::Add, &[y, shortcut])?;
    relu(graph, sum)
}

/// A convolution without bias that halves its input exactly where the stride is 2; its weight starts normal
/// with deviation √(2 / fan_out) (`kaiming_normal_`; He et al., "Delving Deep into Rectifiers", 2015).
fn conv(
    graph: &mut Graph,
    name: &str,
    x: TensorId,
    out: usize,
    kernel: usize,
    stride: usize,
) -> Result<TensorId> {
    let fan_out = (out * kernel * kernel) as f64;
    let conv = Conv2d {
        out,
        kernel: [kernel; 2],
        geometry: ConvGeometry { stride: [stride; 2], padding: [kernel / 2; 2], groups: 1 },
        bias: false,
        start: Start::Normal { std: (2.0 / fan_out).sqrt() },
    };
    within(graph, name, |graph| build::conv2d(graph, x, &conv))
}

fn norm(graph: &mut Graph, name: &str, x: TensorId, mode: Mode) -> Result<TensorId> {
    within(graph, name, |graph| build::batch_norm(graph, x, MOMENTUM, EPS, mode))
}

fn relu(graph: &mut Graph, x: TensorId) -> Result<TensorId> {
    within(graph, "relu", |graph| graph.push_one(Op::Relu, &[x]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, TargetSpec};
    use crate::nn::describe::{ModelDescription, describe};

    fn described(depth: Depth, side: usize, classes: usize) -> ModelDescription {
        let spec = SampleSpec {
            input_shape: vec![3, side, side],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes },
        };
        let model = ResNet::new(depth, &spec).expect("images fit");
        describe(&model, &spec, 2).expect("images fit")
    }

    /// The lists are `name shape` of each entry of torchvision 0.29's `state_dict()`, but for batch counters.
    #[test]
    fn names_shapes_and_order_are_torchvisions() {
        for (depth, list) in [
            (Depth::ResNet18, include_str!("resnet/resnet18.txt")),
            (Depth::ResNet34, include_str!("resnet/resnet34.txt")),
            (Depth::ResNet50, include_str!("resnet/resnet50.txt")),
        ] {
            let description = described(depth, 224, 1000);
            assert_eq!(description.tensor_lines(), list.lines().collect::<Vec<_>>(), "{depth:?}");
        }
    }

    #[test]
    fn parameters_are_counted_as_published() {
        let count = |depth| described(depth, 224, 1000).parameter_count;
        assert_eq!(count(Depth::ResNet18), 11_689_512);
        assert_eq!(count(Depth::ResNet34), 21_797_672);
        assert_eq!(count(Depth::ResNet50), 25_557_032);
    }

    #[test]
    fn small_images_keep_their_resolution_in_the_stem() {
        let shapes = |side| {
            let rows = described(Depth::ResNet18, side, 10).modules;
            let of = |name: &str| {
                rows.iter().rev().find(|row| row.name == name).map(|row| row.output_shape.clone())
            };
            [of("conv1"), of("maxpool"), of("layer1.1"), of("layer4.1")]
                .map(Option::unwrap_or_default)
        };
        let images = |side: usize, width: usize| vec![2, width, side, side];
        assert_eq!(shapes(32), [images(32, 64), vec![], images(32, 64), images(4, 512)]);
        assert_eq!(shapes(64), [images(64, 64), vec![], images(64, 64), images(8, 512)]);
        assert_eq!(shapes(65)[..2], [images(33, 64), images(17, 64)]);
        assert_eq!(shapes(224), [images(112, 64), images(56, 64), images(56, 64), images(7, 512)]);
    }
}
