//! What each operation becomes on the GPU, one file a family.
//!
//! Shapes and attributes reach a shader as pipeline-overridable constants, so the driver sees them as
//! literals, and operations that agree in all of them share one pipeline.

mod attention;
mod batch_norm;
mod choice;
mod elementwise;
mod embedding;
mod losses;
mod mix;
mod muon;
mod norm;
mod optimizer;
mod pooling;
mod rearrange;
mod rotary;
mod sums;
mod tiles;

use super::dense;
use super::kernel::{Binding, Bound, DeviceCaps, Dispatch, Lowered, Shader};
use crate::batch::DType;
use crate::graph::op::{Activation, Op};

/// Invocations of a workgroup: enough for every GPU's width, and for a software adapter a loop of a
/// few vectors.
pub(super) const WORKGROUP: u32 = 64;

/// A shader of `shaders/NAME.wgsl` after the shared parts it needs.
macro_rules! shader {
    ($name:literal $(, $part:literal)*) => {
        $crate::gpu::kernel::Shader::new(
            $name,
            vec![
                $(include_str!(concat!("../../../shaders/shared/", $part, ".wgsl")),)*
                include_str!(concat!("../../../shaders/", $name, ".wgsl")),
            ],
        )
    };
}
use shader;

/// A shared part, for `Shader::with_part`.
macro_rules! part {
    ($part:literal) => {
        include_str!(concat!("../../../shaders/shared/", $part, ".wgsl"))
    };
}
use part;

/// As `shader!`, of a shader that computes with four elements at once where `$four` holds.
macro_rules! element_shader {
    ($four:expr, $name:literal $(, $part:literal)*) => {
        if $four {
            $crate::gpu::lower::shader!($name, "element4" $(, $part)*)
        } else {
            $crate::gpu::lower::shader!($name, "element1" $(, $part)*)
        }
    };
}
use element_shader;

/// The part for four elements at once, or the one for one.
fn by(four: bool, one_part: &'static str, four_part: &'static str) -> &'static str {
    if four { four_part } else { one_part }
}

/// Whether a shader over so many numbers can take four at once.
fn by_four(len: usize) -> bool {
    len.is_multiple_of(4)
}

/// How many elements of such a shader so many numbers are.
fn elements(len: usize) -> usize {
    if by_four(len) { len / 4 } else { len }
}

/// The dispatches that compute `op` over the given tensors.
pub fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match op {
        Op::MatMul { .. }
        | Op::Conv2d { .. }
        | Op::Conv2dInputGrad { .. }
        | Op::Conv2dWeightGrad { .. } => dense::lower(op, bound, caps, None),
        Op::NormalizeU8
        | Op::AugmentU8
        | Op::Relu
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
        | Op::Cast
        | Op::LossScale
        | Op::Broadcast { .. }
        | Op::Dropout { .. } => elementwise::lower(op, bound, caps),
        Op::MaxPool2d { .. }
        | Op::MaxPool2dGrad { .. }
        | Op::AvgPool2d { .. }
        | Op::AvgPool2dGrad { .. } => pooling::lower(op, bound, caps),
        Op::Bias | Op::BiasGrad | Op::Reduce { .. } => sums::lower(op, bound, caps),
        Op::Concat { .. } | Op::Slice { .. } | Op::Unslice { .. } | Op::Transpose => {
            rearrange::lower(op, bound, caps)
        }
        Op::Embedding | Op::EmbeddingGrad => embedding::lower(op, bound, caps),
        Op::Rotary { .. } | Op::RotaryGrad { .. } => rotary::lower(op, bound, caps),
        Op::DocumentStarts { end } => embedding::document_starts(*end, bound, caps),
        Op::Attention { .. } | Op::AttentionGrad { .. } | Op::CachedAttention { .. } => {
            attention::lower(op, bound, caps)
        }
        Op::BatchNormStats { .. }
        | Op::BatchNorm { .. }
        | Op::BatchNormParamGrad { .. }
        | Op::BatchNormInputGrad { .. }
        | Op::BatchNormTrain { .. }
        | Op::BatchNormGrad { .. } => batch_norm::lower(op, bound, caps),
        Op::LayerNorm { .. }
        | Op::LayerNormInputGrad { .. }
        | Op::LayerNormParamGrad
        | Op::RmsNorm { .. }
        | Op::RmsNormInputGrad { .. }
        | Op::RmsNormParamGrad => norm::lower(op, bound, caps),
        Op::MixDraw { .. } | Op::Mix | Op::SoftTarget { .. } => mix::lower(op, bound, caps),
        Op::ChooseToken => choice::lower(bound, caps),
        Op::CrossEntropy { .. }
        | Op::SoftCrossEntropy { .. }
        | Op::MeanSquaredError { .. }
        | Op::Accuracy
        | Op::StepMetrics { .. } => losses::lower(op, bound, caps),
        Op::MuonMomentum { .. } | Op::MuonNormalize | Op::NewtonSchulz | Op::MuonUpdate { .. } => {
            muon::lower(op, bound, caps)
        }
        Op::GradSquares
        | Op::OptimizerControl { .. }
        | Op::OptimizerUpdate { .. }
        | Op::MovingAverage { .. }
        | Op::GradAccumulate
        | Op::AddTo => optimizer::lower(op, bound, caps),
    }
}

/// A list of constants by name.
type Constants = Vec<(&'static str, f64)>;

/// A dispatch of at least `invocations`, in workgroups of [`WORKGROUP`].
fn dispatch(
    shader: Shader,
    constants: Constants,
    bindings: Vec<Binding>,
    invocations: usize,
    caps: &DeviceCaps,
) -> Dispatch {
    let workgroups = fold(invocations.div_ceil(WORKGROUP as usize), caps);
    Dispatch { shader, constants, bindings, workgroups, guarded: true }
}

/// All inputs and then all outputs, as every operation of a single dispatch binds them.
fn inputs_and_outputs(bound: Bound) -> Vec<Binding> {
    let inputs = (0..bound.inputs.len()).map(Binding::Input);
    inputs.chain((0..bound.outputs.len()).map(Binding::Output)).collect()
}

/// An operation that is one dispatch over all its bindings.
fn single(
    shader: Shader,
    constants: Constants,
    bound: Bound,
    invocations: usize,
    caps: &DeviceCaps,
) -> Lowered {
    let mut constants = constants;
    let y = bound.outputs[0];
    if y.dtype == DType::F16 && !y.len().is_multiple_of(2) {
        constants.push(("ODD", 1.0));
    }
    let dispatch = dispatch(shader, constants, inputs_and_outputs(bound), invocations, caps);
    Lowered { dispatches: vec![dispatch], scratch_bytes: vec![] }
}

/// So many workgroups, folded into two dimensions if one cannot hold them.
pub(super) fn fold(workgroups: usize, caps: &DeviceCaps) -> [u32; 3] {
    let rows = workgroups.div_ceil(caps.max_workgroups as usize).max(1);
    [workgroups.div_ceil(rows).max(1) as u32, rows as u32, 1]
}

/// The value of `ACTIVATION` in `shaders/shared/activation.wgsl`.
pub(super) fn activation_code(activation: Activation) -> f64 {
    match activation {
        Activation::Identity => 0.0,
        Activation::Relu => 1.0,
        Activation::Gelu => 2.0,
        Activation::GeluTanh => 3.0,
    }
}

/// A shape `[n, c, ..]` as rows, channels and the elements of a plane.
fn channels(shape: &[usize]) -> [usize; 3] {
    [shape[0], shape[1], shape[2..].iter().product()]
}

/// Turns of all loops of an invocation together, with some to spare: llvmpipe ends them after 65,535, whatever is left to do.
const SOFTWARE_TURNS: usize = 60_000;

/// How many invocations share a row of `len` elements, over which they go a few times: one for short rows, and on software
/// adapters, where sharing costs more than it saves, as long as it may go on for so long; else a whole workgroup.
fn row_lanes(len: usize, caps: &DeviceCaps) -> u32 {
    let is_short = len <= WORKGROUP as usize;
    if is_short || caps.software && 6 * len <= SOFTWARE_TURNS { 1 } else { WORKGROUP }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workgroups_beyond_one_dimension_are_folded_and_none_is_lost() {
        let caps = DeviceCaps {
            max_workgroups: 65535,
            workgroup_bytes: 16384,
            max_invocations: 256,
            software: false,
            subgroup_size: 0,
            cooperative: false,
        };
        for count in [1, 65535, 65536, 65537, 131_071, 10_000_019] {
            let [x, y, z] = fold(count, &caps);
            assert!(x <= 65535 && y <= 65535 && z == 1, "{count}");
            let made = x as usize * y as usize;
            assert!(made >= count && made < count + y as usize, "{count} became {made}");
        }
    }
}
