//! The layers a model can be listed from: what each is called in a config, what it is in PyTorch, and
//! the operations it adds to a graph.
//!
//! A layer adds plain operations, one after the other; [`fuse`](crate::graph::fuse) merges what one
//! kernel can do.

use serde::{Deserialize, Serialize};

use super::Mode;
use crate::batch::DType;
use crate::error::{Error, Result};
use crate::graph::op::{Activation, ConvGeometry, Op, PoolGeometry};
use crate::graph::{Graph, Init, Role, TensorId};

/// A size in two dimensions: one number for a square, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a whole number or [height, width]")]
pub enum Extent {
    /// The same in both dimensions.
    Square(usize),
    /// `[height, width]`.
    Sides([usize; 2]),
}

impl Extent {
    /// `[height, width]`.
    pub fn sides(self) -> [usize; 2] {
        match self {
            Extent::Square(side) => [side, side],
            Extent::Sides(sides) => sides,
        }
    }
}

impl From<usize> for Extent {
    fn from(side: usize) -> Self {
        Extent::Square(side)
    }
}

impl From<[usize; 2]> for Extent {
    fn from(sides: [usize; 2]) -> Self {
        Extent::Sides(sides)
    }
}

/// How many features the output of a linear layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a whole number or \"classes\"")]
pub enum Features {
    /// So many.
    Count(usize),
    /// As many as the data set's target asks for; only in the last linear layer.
    OfTarget(OfTarget),
}

impl Default for Features {
    fn default() -> Self {
        Features::OfTarget(OfTarget::Classes)
    }
}

/// The word `classes` in place of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OfTarget {
    /// The number of classes of a classifier, or of values in a regression.
    Classes,
}

/// A layer and the module path it has in PyTorch; without one it is `net.{index}`.
///
/// In a config each is a table with the layer's `type` in snake case, for example
/// `{ type = "conv2d", out = 16, kernel = 3, padding = 1 }`. Defaults are PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// `torch.nn.Linear`: `[n, in]` to `[n, out]`.
    Linear {
        /// PyTorch's module path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Features of the output; as many as classes if left out.
        #[serde(default)]
        out: Features,
        /// Whether a bias is learned.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// `torch.nn.Conv2d`: `[n, in, h, w]` to `[n, out, oh, ow]`.
    #[serde(rename = "conv2d")]
    Conv2d {
        /// PyTorch's module path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Channels of the output.
        out: usize,
        /// Size of the window.
        kernel: Extent,
        /// Step between windows.
        #[serde(default = "one")]
        stride: Extent,
        /// Zeros added on each side.
        #[serde(default = "zero")]
        padding: Extent,
        /// Groups that channels are divided into.
        #[serde(default = "one_group")]
        groups: usize,
        /// Whether a bias is learned.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// `torch.nn.ReLU`.
    Relu {
        /// PyTorch's module path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// `torch.nn.GELU`, with the error function.
    Gelu {
        /// PyTorch's module path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// `torch.nn.MaxPool2d`.
    #[serde(rename = "max_pool2d")]
    MaxPool2d {
        /// PyTorch's module path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Size of the window.
        kernel: Extent,
        /// Step between windows; the window's size if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Extent>,
        /// Padding on each side, never chosen.
        #[serde(default = "zero")]
        padding: Extent,
    },
    /// `torch.nn.AvgPool2d`; padding counts as zeros.
    #[serde(rename = "avg_pool2d")]
    AvgPool2d {
        /// PyTorch's module path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Size of the window.
        kernel: Extent,
        /// Step between windows; the window's size if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Extent>,
        /// Padding on each side.
        #[serde(default = "zero")]
        padding: Extent,
    },
    /// `torch.nn.BatchNorm1d` and `BatchNorm2d` (Ioffe and Szegedy, 2015): over all but the channels.
    BatchNorm {
        /// PyTorch's module path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Share of the new value in the running statistics.
        #[serde(default = "tenth")]
        momentum: f64,
        /// Added to the variance.
        #[serde(default = "tiny")]
        eps: f64,
    },
    /// `torch.nn.LayerNorm` over the last dimension (Ba, Kiros and Hinton, 2016).
    LayerNorm {
        /// PyTorch's module path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Added to the variance.
        #[serde(default = "tiny")]
        eps: f64,
    },
    /// `torch.nn.Dropout` (Srivastava et al., 2014).
    Dropout {
        /// PyTorch's module path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Probability of zero.
        #[serde(default = "half")]
        p: f64,
    },
    /// `torch.nn.Flatten`: `[n, ..]` to `[n, product]`.
    Flatten {
        /// PyTorch's module path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
}

fn yes() -> bool {
    true
}

fn zero() -> Extent {
    Extent::Square(0)
}

fn one() -> Extent {
    Extent::Square(1)
}

fn one_group() -> usize {
    1
}

fn half() -> f64 {
    0.5
}

fn tenth() -> f64 {
    0.1
}

fn tiny() -> f64 {
    1e-5
}

/// Short ways to write a layer, with PyTorch's defaults.
impl Layer {
    /// A linear layer with bias to `out` features.
    pub fn linear(out: usize) -> Self {
        Layer::Linear { name: None, out: Features::Count(out), bias: true }
    }

    /// The last linear layer, to as many features as there are classes (or values to regress).
    pub fn classes() -> Self {
        Layer::Linear { name: None, out: Features::default(), bias: true }
    }

    /// A convolution with bias and stride 1.
    pub fn conv2d(out: usize, kernel: impl Into<Extent>, padding: impl Into<Extent>) -> Self {
        Layer::Conv2d {
            name: None,
            out,
            kernel: kernel.into(),
            stride: one(),
            padding: padding.into(),
            groups: 1,
            bias: true,
        }
    }

    /// ReLU.
    pub fn relu() -> Self {
        Layer::Relu { name: None }
    }

    /// GELU.
    pub fn gelu() -> Self {
        Layer::Gelu { name: None }
    }

    /// Max pooling over windows that do not overlap.
    pub fn max_pool2d(kernel: impl Into<Extent>) -> Self {
        Layer::MaxPool2d { name: None, kernel: kernel.into(), stride: None, padding: zero() }
    }

    /// Average pooling over windows that do not overlap.
    pub fn avg_pool2d(kernel: impl Into<Extent>) -> Self {
        Layer::AvgPool2d { name: None, kernel: kernel.into(), stride: None, padding: zero() }
    }

    /// Batch norm.
    pub fn batch_norm() -> Self {
        Layer::BatchNorm { name: None, momentum: tenth(), eps: tiny() }
    }

    /// Layer norm.
    pub fn layer_norm() -> Self {
        Layer::LayerNorm { name: None, eps: tiny() }
    }

    /// Dropout with probability `p`.
    pub fn dropout(p: f64) -> Self {
        Layer::Dropout { name: None, p }
    }

    /// Flatten.
    pub fn flatten() -> Self {
        Layer::Flatten { name: None }
    }

    /// The same layer under a module path of its own.
    pub fn named(mut self, module: impl Into<String>) -> Self {
        match &mut self {
            Layer::Linear { name, .. }
            | Layer::Conv2d { name, .. }
            | Layer::Relu { name }
            | Layer::Gelu { name }
            | Layer::MaxPool2d { name, .. }
            | Layer::AvgPool2d { name, .. }
            | Layer::BatchNorm { name, .. }
            | Layer::LayerNorm { name, .. }
            | Layer::Dropout { name, .. }
            | Layer::Flatten { name } => *name = Some(module.into()),
        }
        self
    }

    /// The module path it was given, if any.
    pub fn name(&self) -> Option<&str> {
        match self {
            Layer::Linear { name, .. }
            | Layer::Conv2d { name, .. }
            | Layer::Relu { name }
            | Layer::Gelu { name }
            | Layer::MaxPool2d { name, .. }
            | Layer::AvgPool2d { name, .. }
            | Layer::BatchNorm { name, .. }
            | Layer::LayerNorm { name, .. }
            | Layer::Dropout { name, .. }
            | Layer::Flatten { name } => name.as_deref(),
        }
    }

    /// Adds its operations under the graph's current scope.
    ///
    /// # Errors
    /// When a setting is out of range or the shape of `x` does not fit, naming the scope.
    pub fn build(&self, graph: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        match *self {
            Layer::Linear { out: Features::Count(out), bias, .. } => linear(graph, x, out, bias),
            Layer::Linear { .. } => Err(fault(graph, "the number of classes is not known here")
                .hint("out = N, or Sequential::new with the data set's sample spec")),
            Layer::Conv2d { out, kernel, stride, padding, groups, bias, .. } => {
                let (stride, padding) = (stride.sides(), padding.sides());
                conv2d(
                    graph,
                    x,
                    out,
                    kernel.sides(),
                    ConvGeometry { stride, padding, groups },
                    bias,
                )
            }
            Layer::Relu { .. } => graph.push_one(Op::Relu, &[x]),
            Layer::Gelu { .. } => graph.push_one(Op::Gelu, &[x]),
            Layer::MaxPool2d { kernel, stride, padding, .. } => {
                expect_image(graph, x, "max_pool2d")?;
                let geometry = pool_geometry(kernel, stride, padding);
                graph.push_one(Op::MaxPool2d { geometry }, &[x])
            }
            Layer::AvgPool2d { kernel, stride, padding, .. } => {
                expect_image(graph, x, "avg_pool2d")?;
                let geometry = pool_geometry(kernel, stride, padding);
                graph.push_one(Op::AvgPool2d { geometry }, &[x])
            }
            Layer::BatchNorm { momentum, eps, .. } => batch_norm(graph, x, momentum, eps, mode),
            Layer::LayerNorm { eps, .. } => layer_norm(graph, x, eps),
            Layer::Dropout { p, .. } => dropout(graph, x, p, mode),
            Layer::Flatten { .. } => flatten(graph, x),
        }
    }
}

/// Elements of the largest weight: with its gradient and moments that fills any device of today, and
/// products of sizes below it cannot overflow.
const MAX_WEIGHT_LEN: usize = 1 << 31;

fn expect_buildable(graph: &Graph, weight: &[usize]) -> Result<()> {
    let len = weight.iter().try_fold(1usize, |len, &side| len.checked_mul(side));
    if len.is_some_and(|len| len <= MAX_WEIGHT_LEN) {
        return Ok(());
    }
    let message = format!("a weight of shape {weight:?} has more than {MAX_WEIGHT_LEN} elements");
    Err(fault(graph, message).hint("fewer features"))
}

/// Weight and bias are uniform in ±1/√fan_in, which is what PyTorch's `kaiming_uniform_(a=√5)` comes to.
fn fan_in_init(fan_in: usize) -> Init {
    Init::Uniform { bound: (1.0 / (fan_in as f64).sqrt()) as f32 }
}

fn linear(graph: &mut Graph, x: TensorId, out: usize, bias: bool) -> Result<TensorId> {
    let &[_, features] = graph.shape(x) else {
        let message =
            format!("linear takes [n, features], found an input of shape {:?}", graph.shape(x));
        return Err(fault(graph, message).hint("a flatten layer before it"));
    };
    if out == 0 || features == 0 {
        let message = format!("linear from {features} to {out} features has nothing to compute");
        return Err(fault(graph, message).hint("at least 1 feature on both sides"));
    }
    let init = fan_in_init(features);
    expect_buildable(graph, &[out, features])?;
    let mut inputs = vec![x, graph.param("weight", &[out, features], init)];
    if bias {
        inputs.push(graph.param("bias", &[out], init));
    }
    let activation = Activation::Identity;
    graph.push_one(Op::MatMul { transpose_a: false, transpose_b: true, bias, activation }, &inputs)
}

fn conv2d(
    graph: &mut Graph,
    x: TensorId,
    out: usize,
    kernel: [usize; 2],
    geometry: ConvGeometry,
    bias: bool,
) -> Result<TensorId> {
    let [_, channels, ..] = expect_image(graph, x, "conv2d")?;
    let groups = geometry.groups;
    if groups == 0 || out == 0 || !channels.is_multiple_of(groups) || !out.is_multiple_of(groups) {
        let message = format!(
            "conv2d from {channels} to {out} channels cannot be divided into {groups} groups"
        );
        return Err(fault(graph, message).hint("groups that divide both numbers of channels"));
    }
    let weight = [out, channels / groups, kernel[0], kernel[1]];
    expect_buildable(graph, &weight)?;
    let fan_in = weight[1..].iter().product();
    if fan_in == 0 {
        let message = format!("conv2d with a {kernel:?} window has nothing to compute");
        return Err(fault(graph, message).hint("a kernel of at least 1"));
    }
    let init = fan_in_init(fan_in);
    let mut inputs = vec![x, graph.param("weight", &weight, init)];
    if bias {
        inputs.push(graph.param("bias", &[out], init));
    }
    graph.push_one(Op::Conv2d { geometry, bias, activation: Activation::Identity }, &inputs)
}

fn pool_geometry(kernel: Extent, stride: Option<Extent>, padding: Extent) -> PoolGeometry {
    PoolGeometry {
        kernel: kernel.sides(),
        stride: stride.unwrap_or(kernel).sides(),
        padding: padding.sides(),
    }
}

fn batch_norm(
    graph: &mut Graph,
    x: TensorId,
    momentum: f64,
    eps: f64,
    mode: Mode,
) -> Result<TensorId> {
    expect_setting(graph, "momentum", momentum, (0.0..=1.0).contains(&momentum), "0 to 1")?;
    expect_setting(graph, "eps", eps, eps > 0.0 && eps.is_finite(), "a number above 0")?;
    let &[_, channels, ..] = graph.shape(x) else {
        let message = format!("batch_norm takes [n, channels, ..], found {:?}", graph.shape(x));
        return Err(fault(graph, message));
    };
    let gamma = graph.param("weight", &[channels], Init::Constant(1.0));
    let beta = graph.param("bias", &[channels], Init::Constant(0.0));
    let running_mean = graph.state("running_mean", &[channels], Init::Constant(0.0));
    let running_var = graph.state("running_var", &[channels], Init::Constant(1.0));
    let (mean, var) = match mode {
        Mode::Eval => (running_mean, running_var),
        Mode::Train => {
            let [mean, var] = ["mean", "var"].map(|name| {
                let name = format!("{}.{name}", graph.scope());
                graph.add_tensor(name, &[channels], DType::F32, Role::Activation)
            });
            let header = graph.header();
            let stats = Op::BatchNormStats { momentum: momentum as f32 };
            graph.push_into(stats, &[x, header], &[mean, var, running_mean, running_var]);
            (mean, var)
        }
    };
    let op = Op::BatchNorm { eps: eps as f32, activation: Activation::Identity, residual: false };
    graph.push_one(op, &[x, gamma, beta, mean, var])
}

/// Dimensions before the last count as rows.
fn layer_norm(graph: &mut Graph, x: TensorId, eps: f64) -> Result<TensorId> {
    expect_setting(graph, "eps", eps, eps > 0.0 && eps.is_finite(), "a number above 0")?;
    let shape = graph.shape(x).to_vec();
    let [rows @ .., features] = shape.as_slice() else {
        return Err(fault(graph, "layer_norm takes at least one dimension, found a scalar"));
    };
    let gamma = graph.param("weight", &[*features], Init::Constant(1.0));
    let beta = graph.param("bias", &[*features], Init::Constant(0.0));
    let op = Op::LayerNorm { eps: eps as f32 };
    if rows.len() == 1 {
        return graph.push_one(op, &[x, gamma, beta]);
    }
    let flat = graph.reshape(x, &[rows.iter().product(), *features])?;
    let y = graph.push_one(op, &[flat, gamma, beta])?;
    graph.reshape(y, &shape)
}

fn dropout(graph: &mut Graph, x: TensorId, p: f64, mode: Mode) -> Result<TensorId> {
    expect_setting(graph, "p", p, (0.0..1.0).contains(&p), "0 up to, not including, 1")?;
    if mode == Mode::Eval || p == 0.0 {
        return Ok(x);
    }
    let header = graph.header();
    let salt = super::init::name_hash(graph.scope()) as u32;
    graph.push_one(Op::Dropout { p: p as f32, salt }, &[x, header])
}

fn flatten(graph: &mut Graph, x: TensorId) -> Result<TensorId> {
    match *graph.shape(x) {
        [_, _] => Ok(x),
        [n, ref rest @ ..] => {
            let shape = [n, rest.iter().product()];
            graph.reshape(x, &shape)
        }
        [] => Err(fault(graph, "flatten takes [n, ..], found a scalar")),
    }
}

fn expect_image(graph: &Graph, x: TensorId, layer: &str) -> Result<[usize; 4]> {
    graph.shape(x).try_into().map_err(|_| {
        let message = format!(
            "{layer} takes images [n, channels, height, width], found an input of shape {:?}",
            graph.shape(x)
        );
        fault(graph, message).hint("--model mlp, or layers that start with a linear one")
    })
}

fn expect_setting(graph: &Graph, key: &str, value: f64, holds: bool, expected: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(fault(graph, format!("{key}: found {value}, expected {expected}")))
}

/// An error of the layer that is being built.
fn fault(graph: &Graph, message: impl std::fmt::Display) -> Error {
    Error::graph(if graph.scope().is_empty() { "model" } else { graph.scope() }, message)
}
