//! What layers and models are built from: each function adds one PyTorch module's parameters and plain
//! operations under the graph's current scope.
//!
//! Settings and shapes are checked here, so that an error names the module that it is about.

use super::{Mode, init};
use crate::batch::DType;
use crate::error::{Error, Result};
use crate::graph::op::{Activation, ConvGeometry, Op, PoolGeometry, Reduction};
use crate::graph::{Graph, Init, Role, TensorId};

/// Elements of the largest weight: with its gradient and moments that fills any device of today, and
/// products of sizes below it cannot overflow.
const MAX_WEIGHT_LEN: usize = 1 << 31;

/// How the weight and the bias of a product start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    /// Both uniform in ±1/√fan_in, which is what PyTorch's `kaiming_uniform_(a=√5)` comes to.
    FanIn,
    /// The weight normal around 0, the bias 0.
    Normal {
        /// The standard deviation.
        std: f64,
    },
}

impl Start {
    /// Weight and bias of a product over `fan_in` values.
    fn inits(self, fan_in: usize) -> (Init, Init) {
        match self {
            Start::FanIn => {
                let init = Init::Uniform { bound: (1.0 / (fan_in as f64).sqrt()) as f32 };
                (init, init)
            }
            Start::Normal { std } => (Init::Normal { std: std as f32 }, Init::Constant(0.0)),
        }
    }
}

/// The settings of a convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Conv2d {
    /// Channels of the output.
    pub out: usize,
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Stride, padding, groups.
    pub geometry: ConvGeometry,
    /// Whether a bias is learned.
    pub bias: bool,
    /// How weight and bias start.
    pub start: Start,
}

/// Builds what `build` builds as the module `name` of the current one.
pub(super) fn within<T>(
    graph: &mut Graph,
    name: &str,
    build: impl FnOnce(&mut Graph) -> Result<T>,
) -> Result<T> {
    let outer = graph.scope().to_string();
    graph.set_scope(if outer.is_empty() { name.to_string() } else { format!("{outer}.{name}") });
    let built = build(graph);
    graph.set_scope(outer);
    built
}

/// `torch.nn.Linear`: `[n, features]` to `[n, out]`.
pub(super) fn linear(
    graph: &mut Graph,
    x: TensorId,
    out: usize,
    bias: bool,
    start: Start,
) -> Result<TensorId> {
    let &[_, features] = graph.shape(x) else {
        let message =
            format!("linear takes [n, features], found an input of shape {:?}", graph.shape(x));
        return Err(fault(graph, message).hint("a flatten layer before it"));
    };
    if out == 0 || features == 0 {
        let message = format!("linear from {features} to {out} features has nothing to compute");
        return Err(fault(graph, message).hint("at least 1 feature on both sides"));
    }
    expect_buildable(graph, &[out, features])?;
    let (weight, bias_init) = start.inits(features);
    let mut inputs = vec![x, graph.param("weight", &[out, features], weight)];
    if bias {
        inputs.push(graph.param("bias", &[out], bias_init));
    }
    let activation = Activation::Identity;
    graph.push_one(Op::MatMul { transpose_a: false, transpose_b: true, bias, activation }, &inputs)
}

/// `torch.nn.Conv2d`: `[n, channels, h, w]` to `[n, out, oh, ow]`.
pub(super) fn conv2d(graph: &mut Graph, x: TensorId, conv: &Conv2d) -> Result<TensorId> {
    let Conv2d { out, kernel, geometry, bias, start } = *conv;
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
    let (weight_init, bias_init) = start.inits(fan_in);
    let mut inputs = vec![x, graph.param("weight", &weight, weight_init)];
    if bias {
        inputs.push(graph.param("bias", &[out], bias_init));
    }
    graph.push_one(Op::Conv2d { geometry, bias, activation: Activation::Identity }, &inputs)
}

/// `torch.nn.MaxPool2d`.
pub(super) fn max_pool2d(
    graph: &mut Graph,
    x: TensorId,
    geometry: PoolGeometry,
) -> Result<TensorId> {
    expect_image(graph, x, "max_pool2d")?;
    graph.push_one(Op::MaxPool2d { geometry }, &[x])
}

/// `torch.nn.AvgPool2d`.
pub(super) fn avg_pool2d(
    graph: &mut Graph,
    x: TensorId,
    geometry: PoolGeometry,
) -> Result<TensorId> {
    expect_image(graph, x, "avg_pool2d")?;
    graph.push_one(Op::AvgPool2d { geometry }, &[x])
}

/// `torch.nn.AdaptiveAvgPool2d(1)` and the flatten after it: `[n, c, h, w]` to `[n, c]`.
pub(super) fn global_avg_pool(graph: &mut Graph, x: TensorId) -> Result<TensorId> {
    let [n, c, h, w] = expect_image(graph, x, "global average pooling")?;
    let planes = graph.reshape(x, &[n, c, h * w])?;
    graph.push_one(Op::Reduce { reduction: Reduction::Mean, axis: 2 }, &[planes])
}

/// `torch.nn.BatchNorm1d` and `BatchNorm2d`.
pub(super) fn batch_norm(
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

/// Adds to each of `n` samples of tokens the same learned positions, as a bias for each number of its tokens; returns
/// `[n, tokens · width]`.
pub(super) fn add_positions(
    graph: &mut Graph,
    x: TensorId,
    n: usize,
    positions: TensorId,
) -> Result<TensorId> {
    let len = graph.shape(positions).iter().product();
    let x = graph.reshape(x, &[n, len])?;
    let positions = graph.reshape(positions, &[len])?;
    graph.push_one(Op::Bias, &[x, positions])
}

/// `torch.nn.LayerNorm` over the last dimension; those before it count as rows.
pub(super) fn layer_norm(graph: &mut Graph, x: TensorId, eps: f64) -> Result<TensorId> {
    expect_setting(graph, "eps", eps, eps > 0.0 && eps.is_finite(), "a number above 0")?;
    let shape = graph.shape(x).to_vec();
    let [rows @ .., features] = shape.as_slice() else {
        return Err(fault(graph, "layer_norm takes at least one dimension, found a scalar"));
    };
    let gamma = graph.param("weight", &[*features], Init::Constant(1.0));
    let beta = graph.param("bias", &[*features], Init::Constant(0.0));
    let op = Op::LayerNorm { eps: eps as f32, residual: false };
    if rows.len() == 1 {
        return graph.push_one(op, &[x, gamma, beta]);
    }
    let flat = graph.reshape(x, &[rows.iter().product(), *features])?;
    let y = graph.push_one(op, &[flat, gamma, beta])?;
    graph.reshape(y, &shape)
}

/// `torch.nn.RMSNorm` over the last dimension of rows `[rows, features]`.
pub(super) fn rms_norm(graph: &mut Graph, x: TensorId, eps: f64) -> Result<TensorId> {
    expect_setting(graph, "eps", eps, eps > 0.0 && eps.is_finite(), "a number above 0")?;
    let &[_, features] = graph.shape(x) else {
        let message = format!("rms_norm takes [rows, features], found {:?}", graph.shape(x));
        return Err(fault(graph, message));
    };
    let gamma = graph.param("weight", &[features], Init::Constant(1.0));
    let op = Op::RmsNorm { eps: eps as f32, residual: false };
    Ok(graph.push(op, &[x, gamma])?[0])
}

/// `torch.nn.Dropout`.
pub(super) fn dropout(graph: &mut Graph, x: TensorId, p: f64, mode: Mode) -> Result<TensorId> {
    expect_setting(graph, "p", p, (0.0..1.0).contains(&p), "0 up to, not including, 1")?;
    if mode == Mode::Eval || p == 0.0 {
        return Ok(x);
    }
    let header = graph.header();
    let salt = init::name_hash(graph.scope()) as u32;
    graph.push_one(Op::Dropout { p: p as f32, salt }, &[x, header])
}

/// `torch.nn.Flatten`: `[n, ..]` to `[n, product]`.
pub(super) fn flatten(graph: &mut Graph, x: TensorId) -> Result<TensorId> {
    match *graph.shape(x) {
        [_, _] => Ok(x),
        [n, ref rest @ ..] => {
            let shape = [n, rest.iter().product()];
            graph.reshape(x, &shape)
        }
        [] => Err(fault(graph, "flatten takes [n, ..], found a scalar")),
    }
}

fn expect_buildable(graph: &Graph, weight: &[usize]) -> Result<()> {
    let len = weight.iter().try_fold(1usize, |len, &side| len.checked_mul(side));
    if len.is_some_and(|len| len <= MAX_WEIGHT_LEN) {
        return Ok(());
    }
    let message = format!("a weight of shape {weight:?} has more than {MAX_WEIGHT_LEN} elements");
    Err(fault(graph, message).hint("fewer features"))
}

/// The four dimensions of images that `layer` takes.
pub(super) fn expect_image(graph: &Graph, x: TensorId, layer: &str) -> Result<[usize; 4]> {
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

/// An error of the module that is being built.
pub(super) fn fault(graph: &Graph, message: impl std::fmt::Display) -> Error {
    Error::graph(if graph.scope().is_empty() { "model" } else { graph.scope() }, message)
}
