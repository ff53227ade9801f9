//! How the shapes and types of results follow from those of the inputs, by families of operations.

use super::op::{
    GRAD_PARTIALS, METRICS_LEN, MIX_LEN, MIX_QUANTILES, MixKind, Op, PoolGeometry, Signature,
};
use super::{Tensor, shapes};
use crate::batch::DType;
use crate::error::Error;
use crate::framing::FRAMING_WORDS;

type Inferred = Result<Vec<Signature>, String>;

impl Op {
    /// Shapes and types of the outputs that are made anew, in binding order, or why the inputs do not
    /// fit. Operations whose output shape does not follow from the inputs (gradients with respect to a
    /// tensor whose shape is known elsewhere, updates in place) are given their outputs instead.
    pub fn infer(&self, inputs: &[&Tensor]) -> Result<Vec<Signature>, String> {
        let inputs = Inputs(inputs);
        match self {
            Op::NormalizeU8
            | Op::AugmentU8
            | Op::Conv2d { .. }
            | Op::MaxPool2d { .. }
            | Op::AvgPool2d { .. }
            | Op::MixDraw { .. }
            | Op::Mix => images(self, inputs),
            Op::MatMul { .. } | Op::Bias | Op::BiasGrad => products(self, inputs),
            Op::Relu
            | Op::Gelu
            | Op::GeluTanh
            | Op::Scale { .. }
            | Op::Cast
            | Op::LossScale
            | Op::MuonNormalize
            | Op::Dropout { .. }
            | Op::SwiGlu
            | Op::Add
            | Op::Mul
            | Op::ReluGrad
            | Op::GeluGrad
            | Op::GeluTanhGrad
            | Op::NewtonSchulz
            | Op::AddReluGrad => elements(self, inputs),
            Op::Reduce { .. }
            | Op::Broadcast { .. }
            | Op::Concat { .. }
            | Op::Slice { .. }
            | Op::Unslice { .. }
            | Op::Transpose => rearranged(self, inputs),
            Op::Embedding
            | Op::Rotary { .. }
            | Op::DocumentStarts { .. }
            | Op::Attention(_)
            | Op::AttentionGrad(_) => text(self, inputs),
            Op::RmsNorm { .. }
            | Op::RmsNormParamGrad
            | Op::BatchNormStats { .. }
            | Op::BatchNorm { .. }
            | Op::BatchNormParamGrad { .. }
            | Op::BatchNormInputGrad { .. }
            | Op::BatchNormTrain { .. }
            | Op::BatchNormGrad { .. }
            | Op::LayerNormInputGrad { .. }
            | Op::RmsNormInputGrad { .. }
            | Op::LayerNorm { .. }
            | Op::LayerNormParamGrad => norms(self, inputs),
            Op::SoftTarget { .. }
            | Op::SoftCrossEntropy { .. }
            | Op::CrossEntropy { .. }
            | Op::MeanSquaredError { .. }
            | Op::Accuracy
            | Op::StepMetrics { .. } => losses(self, inputs),
            Op::GradSquares => Ok(vec![f32s(&[GRAD_PARTIALS])]),
            Op::Conv2dInputGrad { .. }
            | Op::Conv2dWeightGrad { .. }
            | Op::MaxPool2dGrad { .. }
            | Op::AvgPool2dGrad { .. }
            | Op::EmbeddingGrad
            | Op::SwiGluGrad
            | Op::RotaryGrad { .. }
            | Op::CachedAttention { .. }
            | Op::ChooseToken
            | Op::OptimizerControl { .. }
            | Op::OptimizerUpdate { .. }
            | Op::MuonMomentum { .. }
            | Op::MuonUpdate { .. }
            | Op::MovingAverage { .. }
            | Op::GradAccumulate
            | Op::AddTo => Ok(vec![]),
        }
    }
}

/// The inputs in binding order.
#[derive(Clone, Copy)]
struct Inputs<'t>(&'t [&'t Tensor]);

impl<'t> Inputs<'t> {
    fn shape(self, i: usize) -> &'t [usize] {
        &self.0[i].shape
    }

    fn dtype(self, i: usize) -> DType {
        self.0[i].dtype
    }
}

fn f32s(shape: &[usize]) -> Signature {
    (shape.to_vec(), DType::F32)
}

/// Images and what is mixed of them.
fn images(op: &Op, inputs: Inputs<'_>) -> Inferred {
    let shape = |i: usize| inputs.shape(i);
    match op {
        Op::NormalizeU8 | Op::AugmentU8 => {
            expect(inputs.dtype(0) == DType::U8, || {
                format!("{} takes u8, found {:?}", op.name(), inputs.dtype(0))
            })?;
            expect_channels(shape(0), shape(1))?;
            if *op == Op::AugmentU8 {
                let [n, ..] = image(shape(0))?;
                expect(shape(3) == [n, FRAMING_WORDS], || {
                    format!("{n} images take framings [{n}, {FRAMING_WORDS}], found {:?}", shape(3))
                })?;
            }
            Ok(vec![f32s(shape(0))])
        }
        Op::Conv2d { geometry, bias, .. } => {
            let [n, c, h, w] = image(shape(0))?;
            let [o, cg, kh, kw] = image(shape(1))?;
            let groups = geometry.groups;
            expect(groups > 0 && c % groups == 0 && o % groups == 0 && c / groups == cg, || {
                format!(
                    "conv2d with {groups} groups over {c} channels does not fit a weight of shape {:?}",
                    shape(1)
                )
            })?;
            if *bias {
                expect(shape(2) == [o], || {
                    format!("bias of a convolution to {o} channels has shape {:?}", shape(2))
                })?;
            }
            let oh = windows(h, kh, geometry.stride[0], geometry.padding[0])?;
            let ow = windows(w, kw, geometry.stride[1], geometry.padding[1])?;
            Ok(vec![f32s(&[n, o, oh, ow])])
        }
        Op::MaxPool2d { geometry } | Op::AvgPool2d { geometry } => {
            let [n, c, h, w] = image(shape(0))?;
            let PoolGeometry { kernel, stride, padding } = geometry;
            expect(2 * padding[0] <= kernel[0] && 2 * padding[1] <= kernel[1], || {
                format!(
                    "pooling by {kernel:?} takes padding of at most half of it, found {padding:?}"
                )
            })?;
            let oh = windows(h, kernel[0], stride[0], padding[0])?;
            let ow = windows(w, kernel[1], stride[1], padding[1])?;
            let y = vec![n, c, oh, ow];
            Ok(match op {
                Op::MaxPool2d { .. } => vec![(y.clone(), DType::F32), (y, DType::U32)],
                _ => vec![(y, DType::F32)],
            })
        }
        Op::MixDraw { kind, height, width } => {
            let entries = MIX_QUANTILES * if *kind == MixKind::Either { 2 } else { 1 };
            expect(shape(1) == [entries], || {
                format!("mix_draw by {kind:?} takes {entries} entries, found {:?}", shape(1))
            })?;
            expect([height, width].iter().all(|side| (1..1 << 16).contains(*side)), || {
                format!("images to mix have 1 to 65535 rows and columns, found {height} × {width}")
            })?;
            Ok(vec![f32s(&[MIX_LEN])])
        }
        Op::Mix => {
            expect(shape(0).len() >= 2 && inputs.dtype(0) == DType::F32, || {
                format!("mix takes f32[n, ..], found {:?} {:?}", inputs.dtype(0), shape(0))
            })?;
            Ok(vec![f32s(shape(0))])
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// Products with matrices, and biases.
fn products(op: &Op, inputs: Inputs<'_>) -> Inferred {
    let shape = |i: usize| inputs.shape(i);
    match op {
        Op::MatMul { transpose_a, transpose_b, bias, .. } => {
            let (m, k) = matrix(shape(0), *transpose_a)?;
            let (k2, n) = matrix(shape(1), *transpose_b)?;
            expect(k == k2, || {
                format!(
                    "matmul needs equal inner lengths, found {:?} and {:?} ({k} and {k2})",
                    shape(0),
                    shape(1)
                )
            })?;
            if *bias {
                expect(shape(2) == [n], || {
                    format!("bias of a matmul to {n} columns has shape {:?}", shape(2))
                })?;
            }
            Ok(vec![f32s(&[m, n])])
        }
        Op::Bias => {
            expect_channels(shape(0), shape(1))?;
            Ok(vec![f32s(shape(0))])
        }
        Op::BiasGrad => {
            expect(shape(0).len() >= 2, || format!("found shape {:?}", shape(0)))?;
            Ok(vec![f32s(&shape(0)[1..2])])
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// Element by element.
fn elements(op: &Op, inputs: Inputs<'_>) -> Inferred {
    let shape = |i: usize| inputs.shape(i);
    match op {
        Op::Relu
        | Op::Gelu
        | Op::GeluTanh
        | Op::Scale { .. }
        | Op::Cast
        | Op::LossScale
        | Op::MuonNormalize
        | Op::Dropout { .. } => Ok(vec![f32s(shape(0))]),
        Op::SwiGlu
        | Op::Add
        | Op::Mul
        | Op::ReluGrad
        | Op::GeluGrad
        | Op::GeluTanhGrad
        | Op::NewtonSchulz => {
            expect(shape(0) == shape(1), || {
                format!("{} needs equal shapes, found {:?} and {:?}", op.name(), shape(0), shape(1))
            })?;
            Ok(vec![f32s(shape(0))])
        }
        Op::AddReluGrad => {
            expect(shape(0) == shape(1) && shape(0) == shape(2), || {
                let [a, b, y] = [shape(0), shape(1), shape(2)];
                format!("add_relu_grad needs equal shapes, found {a:?}, {b:?} and {y:?}")
            })?;
            Ok(vec![f32s(shape(0))])
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// Sums over dimensions, and moves.
fn rearranged(op: &Op, inputs: Inputs<'_>) -> Inferred {
    let shape = |i: usize| inputs.shape(i);
    match op {
        Op::Reduce { axis, .. } => {
            expect(*axis < shape(0).len(), || {
                format!("reduce over dimension {axis} of a tensor of shape {:?}", shape(0))
            })?;
            let mut y = shape(0).to_vec();
            y.remove(*axis);
            Ok(vec![(y, DType::F32)])
        }
        Op::Broadcast { axis, len, .. } => {
            expect(*axis <= shape(0).len(), || {
                format!("broadcast at dimension {axis} of a tensor of shape {:?}", shape(0))
            })?;
            let mut y = shape(0).to_vec();
            y.insert(*axis, *len);
            Ok(vec![(y, DType::F32)])
        }
        Op::Concat { axis } => Ok(vec![f32s(&shapes::concat(shape(0), shape(1), *axis)?)]),
        Op::Slice { axis, start, len } => {
            Ok(vec![f32s(&shapes::slice(shape(0), *axis, *start, *len)?)])
        }
        Op::Unslice { axis, start, len } => {
            Ok(vec![f32s(&shapes::unslice(shape(0), *axis, *start, *len)?)])
        }
        Op::Transpose => Ok(vec![f32s(&shapes::transpose(shape(0))?)]),
        _ => unreachable!("dispatched by family"),
    }
}

/// What models of text are made of.
fn text(op: &Op, inputs: Inputs<'_>) -> Inferred {
    let shape = |i: usize| inputs.shape(i);
    match op {
        Op::Embedding => {
            expect(matches!(inputs.dtype(0), DType::U8 | DType::U16 | DType::U32), || {
                format!("embedding takes whole numbers, found {:?}", inputs.dtype(0))
            })?;
            Ok(vec![f32s(&shapes::embedding(shape(0), shape(1))?)])
        }
        Op::Rotary { .. } => {
            Ok(vec![f32s(&shapes::rotary(shape(0), shape(1), shape(2), shape(3))?)])
        }
        Op::DocumentStarts { .. } => {
            expect(shape(0).len() == 2, || {
                format!("document_starts takes tokens [n, tokens], found {:?}", shape(0))
            })?;
            Ok(vec![(shape(0).to_vec(), DType::U32); 2])
        }
        Op::Attention(how) => {
            let [y, lse] = how.shapes(shape(0))?;
            expect(!how.documents || shape(1) == &shape(0)[..2], || {
                format!("tokens {:?} have starts of shape {:?}", shape(0), shape(1))
            })?;
            Ok(vec![f32s(&y), f32s(&lse)])
        }
        Op::AttentionGrad { .. } => Ok(vec![f32s(shape(1))]),
        _ => unreachable!("dispatched by family"),
    }
}

/// Norms and their gradients.
fn norms(op: &Op, inputs: Inputs<'_>) -> Inferred {
    let shape = |i: usize| inputs.shape(i);
    match op {
        Op::RmsNorm { residual, .. } => {
            let Some((&d, rows)) = shape(0).split_last() else {
                return Err("rms norm takes at least one dimension".into());
            };
            expect(shape(1) == [d], || {
                format!("rms norm over {d} has a weight of shape {:?}", shape(1))
            })?;
            let sum = residual.then(|| residual_sum(shape(0), shape(2))).transpose()?;
            Ok([f32s(shape(0)), f32s(rows)].into_iter().chain(sum).collect())
        }
        Op::RmsNormParamGrad => Ok(vec![f32s(&shape(1)[shape(1).len() - 1..])]),
        Op::BatchNormStats { .. } => {
            let c = expect_channelled(shape(0))?;
            Ok(vec![f32s(c), f32s(c)])
        }
        Op::BatchNormTrain { residual, .. } => {
            let c = expect_channelled(shape(0))?;
            (1..3).try_for_each(|i| expect_channels(shape(0), shape(i)))?;
            if *residual {
                residual_sum(shape(0), shape(4))?;
            }
            Ok([shape(0), c, c, c, c].map(f32s).to_vec())
        }
        Op::BatchNormGrad { .. } => Ok([1, 2, 2].map(|i| f32s(shape(i))).to_vec()),
        Op::BatchNorm { residual, .. } => {
            (1..5).try_for_each(|i| expect_channels(shape(0), shape(i)))?;
            if *residual {
                residual_sum(shape(0), shape(5))?;
            }
            Ok(vec![f32s(shape(0))])
        }
        Op::BatchNormParamGrad { .. } => Ok(vec![f32s(shape(2)), f32s(shape(2))]),
        Op::BatchNormInputGrad { .. }
        | Op::LayerNormInputGrad { .. }
        | Op::RmsNormInputGrad { .. } => Ok(vec![f32s(shape(1))]),
        Op::LayerNorm { residual, .. } => {
            let Some((&d, rows)) = shape(0).split_last() else {
                return Err("layer norm takes at least one dimension".into());
            };
            expect(shape(1) == [d] && shape(2) == [d], || {
                format!("layer norm over {d} has weights of shape {:?}", shape(1))
            })?;
            let sum = residual.then(|| residual_sum(shape(0), shape(3))).transpose()?;
            let made = [f32s(shape(0)), f32s(rows), f32s(rows)];
            Ok(made.into_iter().chain(sum).collect())
        }
        Op::LayerNormParamGrad => {
            let d = &shape(1)[shape(1).len() - 1..];
            Ok(vec![f32s(d), f32s(d)])
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// Losses and what is measured.
fn losses(op: &Op, inputs: Inputs<'_>) -> Inferred {
    let shape = |i: usize| inputs.shape(i);
    match op {
        Op::SoftTarget { classes, .. } => Ok(vec![f32s(&[shape(0)[0], *classes])]),
        Op::SoftCrossEntropy { gradient } => {
            expect(shape(0).len() == 2 && shape(0) == shape(1), || {
                format!(
                    "cross-entropy takes logits and probabilities [n, classes], found {:?} and {:?}",
                    shape(0),
                    shape(1)
                )
            })?;
            Ok(loss_outputs(shape(0), *gradient))
        }
        Op::CrossEntropy { gradient, .. } => {
            expect(shape(0).len() == 2 && shape(1) == &shape(0)[..1], || {
                format!(
                    "cross-entropy takes logits [n, classes] and targets [n], found {:?} and {:?}",
                    shape(0),
                    shape(1)
                )
            })?;
            Ok(loss_outputs(shape(0), *gradient))
        }
        Op::MeanSquaredError { gradient } => {
            expect(shape(0).len() == 2 && shape(0) == shape(1), || {
                format!(
                    "mean squared error takes equal shapes [n, d], found {:?} and {:?}",
                    shape(0),
                    shape(1)
                )
            })?;
            Ok(loss_outputs(shape(0), *gradient))
        }
        Op::Accuracy => Ok(vec![f32s(&shape(0)[..1])]),
        Op::StepMetrics { .. } => Ok(vec![f32s(&[METRICS_LEN])]),
        _ => unreachable!("dispatched by family"),
    }
}

/// What x and a residual make.
fn residual_sum(x: &[usize], residual: &[usize]) -> Result<Signature, String> {
    expect(x == residual, || format!("a residual of shape {residual:?} does not fit {x:?}"))?;
    Ok((x.to_vec(), DType::F32))
}

fn loss_outputs(x: &[usize], gradient: bool) -> Vec<Signature> {
    let mut outputs = vec![(x[..1].to_vec(), DType::F32)];
    if gradient {
        outputs.push((x.to_vec(), DType::F32));
    }
    outputs
}

fn expect(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

/// The shape of what is one number a channel.
fn expect_channelled(x: &[usize]) -> Result<&[usize], String> {
    expect(x.len() >= 2, || format!("batch norm takes [n, c, ..], found {x:?}"))?;
    Ok(&x[1..2])
}

fn expect_channels(x: &[usize], per_channel: &[usize]) -> Result<(), String> {
    expect(x.len() >= 2 && per_channel == &x[1..2], || {
        format!("a tensor of shape {x:?} does not fit {per_channel:?} values a channel")
    })
}

fn matrix(shape: &[usize], transposed: bool) -> Result<(usize, usize), String> {
    match (shape, transposed) {
        (&[rows, columns], false) => Ok((rows, columns)),
        (&[rows, columns], true) => Ok((columns, rows)),
        _ => Err(format!("matmul takes two dimensions, found {shape:?}; put a flatten before it")),
    }
}

fn image(shape: &[usize]) -> Result<[usize; 4], String> {
    shape
        .try_into()
        .map_err(|_| format!("expected an image [n, channels, height, width], found {shape:?}"))
}

/// How many windows of `kernel` fit into `len` with padding on both sides.
fn windows(len: usize, kernel: usize, stride: usize, padding: usize) -> Result<usize, String> {
    expect(kernel > 0 && stride > 0, || {
        format!("kernel and stride must be at least 1, found {kernel} and {stride}")
    })?;
    (len + 2 * padding).checked_sub(kernel).map(|room| room / stride + 1).ok_or_else(|| {
        format!("a window of {kernel} does not fit a side of {len} with padding {padding}")
    })
}

/// Wraps an inference message with the layer it belongs to.
pub(super) fn shape_error(scope: &str, message: String) -> Error {
    Error::graph(if scope.is_empty() { "model" } else { scope }, message)
}
