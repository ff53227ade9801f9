//! From a model to a program: input conversion, the model, the loss and its gradient, metrics, the optimizer.

use std::collections::HashSet;
use std::ops::Range;

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::Result;
use crate::framing::FRAMING_WORDS;
use crate::graph::grad::backward;
use crate::graph::op::{CONTROL_LEN, GRAD_PARTIALS, METRICS_LEN, MuonRule, Op, UpdateRule};
use crate::graph::plan::{CONTROL_NAME, Options, Pass, Program, ProgramBuilder, Variable};
use crate::graph::precision::Precision;
use crate::graph::{Arena, Graph, Init, Role, Tensor, TensorId};
use crate::nn::losses::{Loss, LossTensors};
use crate::nn::mixing::{Mixed, Mixing};
use crate::nn::{Mode, Module};
use crate::train::muon;

/// Everything a program is made from.
pub struct Blueprint<'a> {
    /// The model.
    pub model: &'a dyn Module,
    /// What one sample is.
    pub spec: &'a SampleSpec,
    /// Samples a batch.
    pub batch_size: usize,
    /// Mean of each channel, in units of a full byte (0 to 1); one value or none stands for all channels.
    pub mean: &'a [f32],
    /// Standard deviation of each channel, likewise.
    pub std: &'a [f32],
    /// The loss.
    pub loss: Loss,
    /// How to train; `None` makes a program that only evaluates.
    pub training: Option<Training>,
}

/// How a program trains.
#[derive(Clone, Copy, Debug)]
pub struct Training {
    /// The rule of the update.
    pub rule: UpdateRule,
    /// The rule of the update of hidden layers' matrices, where theirs is another.
    pub muon: Option<MuonRule>,
    /// Whether weight decay is for all parameters; else those of one dimension, of norms and biases, are spared.
    pub decay_norms_and_biases: bool,
    /// Largest global norm of the gradients; `None` leaves them.
    pub clip_norm: Option<f32>,
    /// Batches whose gradients are averaged into one update.
    pub accumulate: usize,
    /// Decay of the moving average of the weights, which evaluation then uses; `None` keeps none.
    pub ema: Option<f64>,
    /// How the samples of a batch are mixed.
    pub mixing: Mixing,
    /// How activations are stored, in training and in evaluation; with `F16` the loss is scaled.
    pub precision: Precision,
    /// Whether images come with a framing each, which training does to them as it normalises them.
    pub framed: bool,
}

impl Training {
    /// Plain training by `rule`: 32 bits, no clipping, accumulation, average or mixing.
    pub fn new(rule: UpdateRule) -> Self {
        let (mixing, precision) = (Mixing::default(), Precision::F32);
        Self {
            rule,
            muon: None,
            decay_norms_and_biases: true,
            clip_norm: None,
            accumulate: 1,
            ema: None,
            mixing,
            precision,
            framed: false,
        }
    }
}

/// The scope of the optimizer's operations.
pub(super) const OPTIMIZER: &str = "optimizer";

/// Most elements of an arena that one dispatch of the optimizer binds: 128 MiB, the storage binding that
/// every adapter in use allows.
const STRETCH_LEN: usize = 1 << 25;

/// Compiles a model into a program with a plan for each pass.
///
/// # Errors
/// When shapes do not fit; the error names the layer.
pub fn compile(blueprint: &Blueprint<'_>) -> Result<Program> {
    compile_with(blueprint, Options::default())
}

/// As [`compile`], with plans made as `options` say.
///
/// # Errors
/// As [`compile`].
pub fn compile_with(blueprint: &Blueprint<'_>, options: Options) -> Result<Program> {
    let precision = blueprint.training.map_or(Precision::F32, |training| training.precision);
    let mut builder = ProgramBuilder::new(blueprint.spec, blueprint.batch_size)
        .with_precision(precision)
        .with_options(options);
    if blueprint.training.is_some_and(|training| training.framed) {
        builder = builder.with_framings();
    }
    if let Some(training) = &blueprint.training {
        let several = training.accumulate > 1;
        if several {
            let TrainGraph { mut graph, matrices, .. } = train_graph(blueprint, training)?;
            let layout = Layout::reserve(&mut builder, &graph, training, &matrices)?;
            accumulate(&mut graph, layout.params);
            builder.add(Pass::Accumulate, graph, &[])?;
        }
        let TrainGraph { mut graph, control, matrices } = train_graph(blueprint, training)?;
        let layout = Layout::reserve(&mut builder, &graph, training, &matrices)?;
        if several {
            accumulate(&mut graph, layout.params);
        }
        let gradients = if several { Arena::GradSums } else { Arena::Grads };
        optimizer(&mut graph, &layout, gradients, training, control)?;
        builder.add(Pass::Train, graph, &[])?;
    }
    let mut graph = Graph::new();
    let made = forward(&mut graph, blueprint, Mode::Eval, false)?;
    // Nobody reads the logits of text while a model is trained; with the losses kept they are made by chunks.
    let of_text = matches!(blueprint.spec.target, TargetSpec::Tokens { .. });
    let output = match blueprint.training {
        Some(_) if of_text => made.loss.row_loss,
        _ => made.output,
    };
    builder.add(Pass::Eval, graph, &[output])?;
    Ok(builder.build(output))
}

/// How the arena of parameters is divided: first what decays, then what does not, last the matrices that Muon moves, which
/// keep no second moments.
struct Layout {
    decaying: usize,
    /// Where the matrices begin.
    plain: usize,
    params: usize,
    matrices: Vec<Variable>,
}

impl Layout {
    /// Makes room for the parameters of `graph`.
    fn reserve(
        builder: &mut ProgramBuilder,
        graph: &Graph,
        training: &Training,
        matrices: &HashSet<TensorId>,
    ) -> Result<Self> {
        let nothing_decays = training.rule == training.rule.without_decay();
        let all = training.decay_norms_and_biases || nothing_decays;
        let names: HashSet<&str> =
            matrices.iter().map(|&id| graph.tensor(id).name.as_str()).collect();
        let is_plain = |param: &Tensor| !names.contains(param.name.as_str());
        let decaying = builder
            .reserve_params_if(graph, |param| is_plain(param) && (all || param.shape.len() > 1))?;
        let plain = decaying.max(builder.reserve_params_if(graph, is_plain)?);
        let params = builder.reserve_params(graph)?;
        let is_matrix = |param: &&Variable| names.contains(param.name.as_str());
        let matrices = builder.params().iter().filter(is_matrix).cloned().collect();
        Ok(Self { decaying, plain, params, matrices })
    }
}

/// Forward and backward of a training step.
struct TrainGraph {
    graph: Graph,
    /// The optimizer's control.
    control: TensorId,
    /// The parameters that Muon moves.
    matrices: HashSet<TensorId>,
}

fn train_graph(blueprint: &Blueprint<'_>, training: &Training) -> Result<TrainGraph> {
    let mut graph = Graph::new();
    let control = graph.state(CONTROL_NAME, &[CONTROL_LEN], Init::Constant(0.0));
    let Forward { output, loss } = forward(&mut graph, blueprint, Mode::Train, true)?;
    let matrices = training.muon.map(|_| muon::matrices(&graph)).unwrap_or_default();
    let mut gradient = loss.output_gradient.expect("a loss built with its gradient has one");
    if training.precision == Precision::F16 {
        graph.set_scope("loss");
        gradient = graph.push_one(Op::LossScale, &[gradient, control])?;
    }
    backward(&mut graph, output, gradient)?;
    Ok(TrainGraph { graph, control, matrices })
}

/// What the forward operations end in.
struct Forward {
    output: TensorId,
    loss: LossTensors,
}

/// Adds input conversion, mixing, model, loss and metrics.
fn forward(
    graph: &mut Graph,
    blueprint: &Blueprint<'_>,
    mode: Mode,
    gradient: bool,
) -> Result<Forward> {
    let framed = mode == Mode::Train && blueprint.training.is_some_and(|training| training.framed);
    let x = input(graph, blueprint, framed)?;
    let mixing = match (mode, &blueprint.training) {
        (Mode::Train, Some(training)) => training.mixing,
        _ => Mixing::default(),
    };
    let mixed = mixing.build(graph, x)?;
    let output = blueprint.model.build(graph, mixed.map_or(x, |mixed| mixed.x), mode)?;
    graph.set_scope("loss");
    let batch = blueprint.batch_size;
    let (shape, dtype, tokens) = match blueprint.spec.target {
        TargetSpec::Class { .. } => (vec![batch], DType::U32, None),
        TargetSpec::Values { len } => (vec![batch, len], DType::F32, None),
        TargetSpec::Tokens { len, .. } => (vec![batch * len], DType::U32, Some(len)),
    };
    let target = graph.add_tensor("target", &shape, dtype, Role::Target);
    let header = graph.header();
    let loss = match mixed {
        Some(Mixed { mix, .. }) => {
            blueprint.loss.build_mixed(graph, output, target, mix, header, gradient)?
        }
        None => blueprint.loss.build(graph, output, target, header, gradient, tokens)?,
    };
    let metrics = graph.add_tensor("metrics", &[METRICS_LEN], DType::F32, Role::Metrics);
    let inputs: Vec<TensorId> =
        [Some(loss.row_loss), loss.row_correct, Some(header)].into_iter().flatten().collect();
    let accuracy = loss.row_correct.is_some();
    let step_metrics = Op::StepMetrics { accuracy, per_sample: tokens.unwrap_or(1) };
    graph.push_into(step_metrics, &inputs, &[metrics]);
    graph.set_scope("");
    Ok(Forward { output, loss })
}

/// The input as the model sees it: bytes become floats around 0, images as their framings show them; tokens stay.
fn input(graph: &mut Graph, blueprint: &Blueprint<'_>, framed: bool) -> Result<TensorId> {
    let spec = blueprint.spec;
    let shape: Vec<usize> =
        std::iter::once(blueprint.batch_size).chain(spec.input_shape.iter().copied()).collect();
    let x = graph.add_tensor("input", &shape, spec.input_dtype, Role::Input);
    if spec.input_dtype != DType::U8 || matches!(spec.target, TargetSpec::Tokens { .. }) {
        return Ok(x);
    }
    graph.set_scope("input");
    let channels = shape.get(1).copied().unwrap_or(1);
    let of = |values: &[f32], c: usize, default: f32| match values {
        [] => default,
        values => values[c.min(values.len() - 1)],
    };
    let mean = |c| of(blueprint.mean, c, 0.0);
    let std = |c| of(blueprint.std, c, 1.0);
    let scale = (0..channels).map(|c| 1.0 / (255.0 * std(c))).collect();
    let shift = (0..channels).map(|c| -mean(c) / std(c)).collect();
    let scale = graph.constant("scale", scale);
    let shift = graph.constant("shift", shift);
    let x = if framed {
        let shape = [blueprint.batch_size, FRAMING_WORDS];
        let framings = graph.add_tensor("framings", &shape, DType::U32, Role::Framing);
        graph.push_one(Op::AugmentU8, &[x, scale, shift, framings])?
    } else {
        graph.push_one(Op::NormalizeU8, &[x, scale, shift])?
    };
    graph.set_scope("");
    Ok(x)
}

/// Offsets and lengths of the stretches of the first `len` elements that the optimizer works on.
fn stretches(len: usize) -> impl Iterator<Item = (usize, usize)> {
    stretches_of(0..len)
}

fn stretches_of(range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let end = range.end;
    range.step_by(STRETCH_LEN).map(move |at| (at, STRETCH_LEN.min(end - at)))
}

fn stretch(graph: &mut Graph, arena: Arena, (offset, len): (usize, usize)) -> TensorId {
    graph.add_tensor(format!("{arena:?}"), &[len], DType::F32, Role::Stretch(arena, offset))
}

fn accumulate(graph: &mut Graph, params_len: usize) {
    graph.set_scope(OPTIMIZER);
    let header = graph.header();
    for part in stretches(params_len) {
        let gradients = stretch(graph, Arena::Grads, part);
        let sums = stretch(graph, Arena::GradSums, part);
        graph.push_into(Op::GradAccumulate, &[gradients, header], &[sums]);
    }
}

/// Adds the norm of all gradients, the decision, the update of all parameters, and their average.
fn optimizer(
    graph: &mut Graph,
    layout: &Layout,
    from: Arena,
    training: &Training,
    control: TensorId,
) -> Result<()> {
    graph.set_scope(OPTIMIZER);
    let header = graph.header();
    // The partial sums of all stretches lie one behind another, after the step's metrics.
    let partials_at = 64;
    let count = stretches(layout.params).count();
    for (i, part) in stretches(layout.params).enumerate() {
        let gradients = stretch(graph, from, part);
        let partials = (partials_at + i * GRAD_PARTIALS, GRAD_PARTIALS);
        let partials = stretch(graph, Arena::Metrics, partials);
        graph.push_into(Op::GradSquares, &[gradients], &[partials]);
    }
    let (beta1, beta2) = match training.rule {
        UpdateRule::Adam { beta1, beta2, .. } => (beta1, beta2),
        UpdateRule::Sgd { .. } => (0.0, 0.0),
    };
    let max_norm = training.clip_norm.unwrap_or(f32::INFINITY);
    let partials = stretch(graph, Arena::Metrics, (partials_at, count * GRAD_PARTIALS));
    let scaled = training.precision == Precision::F16;
    let decide = Op::OptimizerControl { max_norm, beta1, beta2, scaled };
    graph.push_into(decide, &[partials], &[control]);
    let updates = [
        (training.rule, 0..layout.decaying),
        (training.rule.without_decay(), layout.decaying..layout.plain),
    ];
    let updates = updates
        .into_iter()
        .flat_map(|(rule, range)| stretches_of(range).map(move |part| (rule, part)));
    for (rule, part) in updates {
        let gradients = stretch(graph, from, part);
        let mut outputs = vec![stretch(graph, Arena::Params, part)];
        for arena in [Arena::First, Arena::Second].into_iter().take(rule.moments()) {
            outputs.push(stretch(graph, arena, part));
        }
        graph.push_into(Op::OptimizerUpdate { rule }, &[gradients, control, header], &outputs);
    }
    if let Some(rule) = training.muon {
        for matrix in &layout.matrices {
            muon::update(graph, rule, matrix, from, control)?;
        }
    }
    if let Some(decay) = training.ema {
        for part in stretches(layout.params) {
            let parameters = stretch(graph, Arena::Params, part);
            let average = stretch(graph, Arena::Average, part);
            let op = Op::MovingAverage { share: (1.0 - decay) as f32 };
            graph.push_into(op, &[parameters, control], &[average]);
        }
    }
    Ok(())
}
