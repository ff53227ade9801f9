//! Layer norm and root mean square norm.

use super::sums::reduce;
use super::{WORKGROUP, dispatch, part, row_lanes, shader, single};
use crate::gpu::kernel::Binding::{Input, Output, ScratchRead, ScratchWrite};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered, Shader, Store};
use crate::graph::Tensor;
use crate::graph::op::Op;

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match *op {
        Op::LayerNorm { eps, residual } => {
            let shader = match residual {
                false => shader!("layer_norm", "dispatch", "rows", "layer_norm_plain"),
                true => with_sum(
                    shader!("layer_norm", "dispatch", "rows", "layer_norm_residual"),
                    bound.inputs[3],
                    bound.outputs[3],
                ),
            };
            by_row(norm_stores(shader, bound), Some(eps), bound.inputs[1], bound, caps)
        }
        Op::LayerNormInputGrad { residual } => {
            let shader = shader!("layer_norm_input_grad", "dispatch", "rows")
                .with_stores(false, gradient_stores(bound));
            let shader = match residual {
                false => shader.with_part(part!("layer_norm_input_grad_plain")),
                true => shader
                    .with_part(part!("layer_norm_input_grad_residual"))
                    .with_stores(false, [("StoreResidual", bound.inputs[5])]),
            };
            by_row(shader, None, bound.inputs[2], bound, caps)
        }
        Op::LayerNormParamGrad => {
            param_grad(shader!("layer_norm_param_grad", "dispatch"), bound, caps)
        }
        Op::RmsNorm { eps, residual } => {
            let shader = match residual {
                false => shader!("rms_norm", "dispatch", "rows", "rms_norm_plain"),
                true => with_sum(
                    shader!("rms_norm", "dispatch", "rows", "rms_norm_residual"),
                    bound.inputs[2],
                    bound.outputs[2],
                ),
            };
            by_row(norm_stores(shader, bound), Some(eps), bound.inputs[1], bound, caps)
        }
        Op::RmsNormInputGrad { residual } => {
            let shader = shader!("rms_norm_input_grad", "dispatch", "rows")
                .with_stores(false, gradient_stores(bound));
            let shader = match residual {
                false => shader.with_part(part!("rms_norm_input_grad_plain")),
                true => shader
                    .with_part(part!("rms_norm_input_grad_residual"))
                    .with_stores(false, [("StoreResidual", bound.inputs[4])]),
            };
            by_row(shader, None, bound.inputs[2], bound, caps)
        }
        Op::RmsNormParamGrad => param_grad(shader!("rms_norm_param_grad", "dispatch"), bound, caps),
        _ => unreachable!("not a norm: {}", op.name()),
    }
}

/// Storage of `x, .. | y`, of a norm by rows.
fn norm_stores(shader: Shader, bound: Bound) -> Shader {
    shader.with_stores(false, [("StoreX", bound.inputs[0]), ("StoreY", bound.outputs[0])])
}

/// Storage of a residual and of what it makes with the input.
fn with_sum(shader: Shader, residual: &Tensor, sum: &Tensor) -> Shader {
    shader
        .with_part(part!("norm_sum"))
        .with_stores(false, [("StoreResidual", residual), ("StoreSum", sum)])
}

/// Storage of `dy, x, .. | dx`.
fn gradient_stores<'a>(bound: Bound<'a>) -> [(&'static str, &'a Tensor); 3] {
    [("StoreDy", bound.inputs[0]), ("StoreX", bound.inputs[1]), ("StoreDx", bound.outputs[0])]
}

/// Storage of `dy, x, ..`, for gradients of parameters.
fn param_gradient_stores<'a>(bound: Bound<'a>) -> [(&'static str, &'a Tensor); 2] {
    [("StoreDy", bound.inputs[0]), ("StoreX", bound.inputs[1])]
}

/// The rows and the length of a row of a tensor that is normalised over its last dimension.
fn rows_of(shape: &[usize]) -> [usize; 2] {
    let d = shape.last().copied().unwrap_or(1);
    [shape.iter().product::<usize>() / d.max(1), d]
}

/// A kernel whose lanes share the rows of its first output, each as long as `gamma`.
fn by_row(
    shader: Shader,
    eps: Option<f32>,
    gamma: &Tensor,
    bound: Bound,
    caps: &DeviceCaps,
) -> Lowered {
    let d = gamma.len();
    let rows = bound.outputs[0].len() / d.max(1);
    let lanes = row_lanes(d, caps);
    let mut constants = vec![("ROWS", rows as f64), ("D", d as f64), ("LANES", f64::from(lanes))];
    constants.extend(eps.map(|eps| ("EPS", f64::from(eps))));
    single(shader, constants, bound, rows * lanes as usize, caps)
}

/// The gradients of parameters of a row: sums over the rows, in parts where there are many.
fn param_grad(shader: Shader, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let [rows, d] = rows_of(&bound.inputs[1].shape);
    let splits = rows.div_ceil(WORKGROUP as usize).min(64);
    let constants =
        |splits: usize| vec![("ROWS", rows as f64), ("D", d as f64), ("SPLITS", splits as f64)];
    let shader = shader.with_stores(false, param_gradient_stores(bound));
    if splits == 1 {
        return single(shader, constants(1), bound, d, caps);
    }
    let outputs = 0..bound.outputs.len();
    let inputs = (0..bound.inputs.len()).map(Input);
    let partial = dispatch(
        shader,
        constants(splits),
        inputs.chain(outputs.clone().map(ScratchWrite)).collect(),
        splits * d,
        caps,
    );
    let total =
        |i| reduce([1, splits, d], 1, 1.0, [ScratchRead(i), Output(i)], [Store::F32; 2], caps);
    Lowered {
        dispatches: [partial].into_iter().chain(outputs.clone().map(total)).collect(),
        scratch_bytes: outputs.map(|_| 4 * splits * d).collect(),
    }
}
