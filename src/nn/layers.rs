//! The layers a model can be listed from: what each is called in a config, what it is in PyTorch, and
//! the operations it adds to a graph.
//!
//! A layer adds plain operations, one after the other; [`fuse`](crate::graph::fuse) merges what one
//! kernel can do.

use serde::{Deserialize, Serialize};

use super::Mode;
use super::build::{self, Start};
use crate::error::Result;
use crate::graph::op::{ConvGeometry, Op, PoolGeometry};
use crate::graph::{Graph, TensorId};

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
            Layer::Linear { out: Features::Count(out), bias, .. } => {
                build::linear(graph, x, out, bias, Start::FanIn)
            }
            Layer::Linear { .. } => {
                Err(build::fault(graph, "the number of classes is not known here")
                    .hint("out = N, or Sequential::new with the data set's sample spec"))
            }
            Layer::Conv2d { out, kernel, stride, padding, groups, bias, .. } => {
                let (stride, padding) = (stride.sides(), padding.sides());
                let geometry = ConvGeometry { stride, padding, groups };
                let (kernel, start) = (kernel.sides(), Start::FanIn);
                build::conv2d(graph, x, &build::Conv2d { out, kernel, geometry, bias, start })
            }
            Layer::Relu { .. } => graph.push_one(Op::Relu, &[x]),
            Layer::Gelu { .. } => graph.push_one(Op::Gelu, &[x]),
            Layer::MaxPool2d { kernel, stride, padding, .. } => {
                build::max_pool2d(graph, x, pool_geometry(kernel, stride, padding))
            }
            Layer::AvgPool2d { kernel, stride, padding, .. } => {
                build::avg_pool2d(graph, x, pool_geometry(kernel, stride, padding))
            }
            Layer::BatchNorm { momentum, eps, .. } => {
                build::batch_norm(graph, x, momentum, eps, mode)
            }
            Layer::LayerNorm { eps, .. } => build::layer_norm(graph, x, eps),
            Layer::Dropout { p, .. } => build::dropout(graph, x, p, mode),
            Layer::Flatten { .. } => build::flatten(graph, x),
        }
    }
}

fn pool_geometry(kernel: Extent, stride: Option<Extent>, padding: Extent) -> PoolGeometry {
    PoolGeometry {
        kernel: kernel.sides(),
        stride: stride.unwrap_or(kernel).sides(),
        padding: padding.sides(),
    }
}
