//! The CPU twins: one an operation, and the executor that runs them.
//!
//! The twins are the oracle of every shader and the device of a machine without a GPU. They are generic
//! over [`Real`]: `f32` trains, `f64` checks gradients by finite differences. Their results are the same
//! to the last bit for any number of threads, since work is divided by its shape alone.

pub mod attention;
pub mod augment;
pub mod batch_norm;
pub mod bias;
pub mod cached_attention;
pub mod call;
mod choose_token;
pub mod conv2d;
mod depthwise;
pub mod documents;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
mod executor;
mod few_rows;
pub mod gemm;
mod im2col;
pub mod layer_norm;
pub mod loss;
pub mod matmul;
mod memory;
pub mod metrics;
pub mod mix;
pub mod moving_average;
pub mod muon;
pub mod normalize;
pub mod optimizer;
mod parallel;
pub mod pool;
mod real;
pub mod rearrange;
pub mod reduce;
pub mod rms_norm;
pub mod rotary;
pub mod soft_loss;
mod special;
#[cfg(test)]
mod testing;
mod winograd;

pub use executor::{Executor, device_info};
pub use real::Real;

use call::{Call, ScratchLen};

use crate::graph::op::Op;

/// Runs the twin of an operation.
///
/// # Panics
/// When the call does not bind what the operation says.
pub fn run<T: Real>(mut call: Call<'_, '_, T>) {
    let call = &mut call;
    match call.op {
        Op::NormalizeU8 => normalize::run(call),
        Op::AugmentU8 => augment::run(call),
        Op::MatMul { .. } => matmul::run(call),
        Op::Conv2d { .. } | Op::Conv2dInputGrad { .. } | Op::Conv2dWeightGrad { .. } => {
            conv2d::run(call);
        }
        Op::MaxPool2d { .. }
        | Op::MaxPool2dGrad { .. }
        | Op::AvgPool2d { .. }
        | Op::AvgPool2dGrad { .. } => pool::run(call),
        Op::Bias | Op::BiasGrad => bias::run(call),
        Op::Relu
        | Op::ReluGrad
        | Op::Gelu
        | Op::GeluGrad
        | Op::GeluTanh
        | Op::GeluTanhGrad
        | Op::SwiGlu
        | Op::SwiGluGrad
        | Op::Add
        | Op::AddReluGrad
        | Op::Mul
        | Op::Scale { .. }
        | Op::Cast => elementwise::run(call),
        Op::Reduce { .. } | Op::Broadcast { .. } => reduce::run(call),
        Op::Concat { .. } | Op::Slice { .. } | Op::Unslice { .. } | Op::Transpose => {
            rearrange::run(call);
        }
        Op::Embedding | Op::EmbeddingGrad => embedding::run(call),
        Op::Rotary { .. } | Op::RotaryGrad { .. } => rotary::run(call),
        Op::DocumentStarts { end } => documents::run(call, *end),
        Op::Attention { .. } | Op::AttentionGrad { .. } => attention::run(call),
        Op::CachedAttention { .. } => cached_attention::run(call),
        Op::ChooseToken => choose_token::run(call),
        Op::BatchNormStats { .. }
        | Op::BatchNorm { .. }
        | Op::BatchNormParamGrad { .. }
        | Op::BatchNormInputGrad { .. }
        | Op::BatchNormTrain { .. }
        | Op::BatchNormGrad { .. } => batch_norm::run(call),
        Op::LayerNorm { .. } | Op::LayerNormInputGrad { .. } | Op::LayerNormParamGrad => {
            layer_norm::run(call);
        }
        Op::RmsNorm { .. } | Op::RmsNormInputGrad { .. } | Op::RmsNormParamGrad => {
            rms_norm::run(call);
        }
        Op::Dropout { .. } => dropout::run(call),
        Op::MixDraw { .. } | Op::Mix | Op::SoftTarget { .. } => mix::run(call),
        Op::SoftCrossEntropy { .. } => soft_loss::run(call),
        Op::CrossEntropy { .. } | Op::MeanSquaredError { .. } => loss::run(call),
        Op::Accuracy | Op::StepMetrics { .. } => metrics::run(call),
        Op::LossScale
        | Op::GradSquares
        | Op::OptimizerControl { .. }
        | Op::OptimizerUpdate { .. }
        | Op::GradAccumulate
        | Op::AddTo => optimizer::run(call),
        Op::MuonMomentum { .. } | Op::MuonNormalize | Op::NewtonSchulz | Op::MuonUpdate { .. } => {
            muon::run(call)
        }
        Op::MovingAverage { .. } => moving_average::run(call),
    }
}

/// The working memory that an operation needs.
pub fn scratch_len(op: &Op, inputs: &[Vec<usize>], outputs: &[Vec<usize>]) -> ScratchLen {
    match op {
        Op::Conv2d { .. } | Op::Conv2dInputGrad { .. } | Op::Conv2dWeightGrad { .. } => {
            conv2d::scratch_len(op, inputs, outputs)
        }
        Op::Attention { .. } => attention::scratch_len(&inputs[0], &outputs[1]),
        Op::AttentionGrad { .. } => attention::scratch_len(&inputs[1], &inputs[3]),
        Op::CachedAttention { .. } => cached_attention::scratch_len(&outputs[0], &outputs[1]),
        Op::ChooseToken => choose_token::scratch_len(&inputs[0]),
        Op::MatMul { .. } if few_rows::fits(op, &inputs[0], &inputs[1]) => {
            ScratchLen { shared: few_rows::scratch_len(op, &inputs[0], &inputs[1]), thread: 0 }
        }
        _ => ScratchLen::default(),
    }
}
