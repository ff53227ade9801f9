//! Batch norm and layer norm.

use super::sums::{Shares, reduce};
use super::{WORKGROUP, activation_code, channels, dispatch, row_lanes, shader, single};
use crate::gpu::kernel::Binding::{Input, Output, ScratchRead, ScratchWrite};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered, Store};
use crate::graph::Tensor;
use crate::graph::op::Op;

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match *op {
        Op::BatchNormStats { momentum } => batch_norm_stats(momentum, bound, caps),
        Op::BatchNorm { eps, activation } => {
            let [_, channels, plane] = channels(&bound.inputs[0].shape);
            let constants = vec![
                ("CHANNELS", channels as f64),
                ("PLANE", plane as f64),
                ("EPS", f64::from(eps)),
                ("ACTIVATION", activation_code(activation)),
            ];
            let tensors = [("StoreX", bound.inputs[0]), ("StoreY", bound.outputs[0])];
            let shader =
                shader!("batch_norm", "dispatch", "gelu", "activation").with_stores(false, tensors);
            single(shader, constants, bound, bound.outputs[0].len(), caps)
        }
        Op::BatchNormParamGrad { eps } => batch_norm_param_grad(eps, bound, caps),
        Op::BatchNormInputGrad { eps } => {
            let [_, channels, plane] = channels(&bound.inputs[1].shape);
            let constants = vec![
                ("CHANNELS", channels as f64),
                ("PLANE", plane as f64),
                ("EPS", f64::from(eps)),
            ];
            let shader = shader!("batch_norm_input_grad", "dispatch", "header")
                .with_stores(false, gradient_stores(bound));
            single(shader, constants, bound, bound.outputs[0].len(), caps)
        }
        Op::LayerNorm { eps } => {
            let tensors = [("StoreX", bound.inputs[0]), ("StoreY", bound.outputs[0])];
            let shader = shader!("layer_norm", "dispatch", "rows").with_stores(false, tensors);
            layer_norm(shader, Some(eps), bound, caps)
        }
        Op::LayerNormInputGrad => {
            let shader = shader!("layer_norm_input_grad", "dispatch", "rows")
                .with_stores(false, gradient_stores(bound));
            layer_norm(shader, None, bound, caps)
        }
        Op::LayerNormParamGrad => layer_norm_param_grad(bound, caps),
        _ => unreachable!("not a norm: {}", op.name()),
    }
}

/// Storage of `dy, x, .. | dx`.
fn gradient_stores<'a>(bound: Bound<'a>) -> [(&'static str, &'a Tensor); 3] {
    [("StoreDy", bound.inputs[0]), ("StoreX", bound.inputs[1]), ("StoreDx", bound.outputs[0])]
}

/// Storage of `dy, x, ..`, for gradients of parameters.
fn param_gradient_stores<'a>(bound: Bound<'a>) -> [(&'static str, &'a Tensor); 2] {
    [("StoreDy", bound.inputs[0]), ("StoreX", bound.inputs[1])]
}

fn batch_norm_stats(momentum: f32, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let shape = &bound.inputs[0].shape;
    let shares = Shares::of(shape);
    let partial = dispatch(
        shader!("batch_norm_stats_partial", "dispatch", "header", "channels")
            .with_stores(false, [("StoreX", bound.inputs[0])]),
        shares.constants(),
        vec![Input(0), Input(1), ScratchWrite(0), ScratchWrite(1)],
        shares.len(),
        caps,
    );
    let mut constants = shares.constants();
    constants.push(("MOMENTUM", f64::from(momentum)));
    let merge = dispatch(
        shader!("batch_norm_stats", "dispatch", "header", "channels"),
        constants,
        vec![ScratchRead(0), ScratchRead(1), Input(1), Output(0), Output(1), Output(2), Output(3)],
        shape[1],
        caps,
    );
    Lowered { dispatches: vec![partial, merge], scratch_bytes: vec![4 * shares.len(); 2] }
}

fn batch_norm_param_grad(eps: f32, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let shape = &bound.inputs[1].shape;
    let shares = Shares::of(shape);
    let partial = dispatch(
        shader!("batch_norm_param_grad_partial", "dispatch", "channels")
            .with_stores(false, param_gradient_stores(bound)),
        shares.constants(),
        vec![Input(0), Input(1), Input(2), ScratchWrite(0), ScratchWrite(1)],
        shares.len(),
        caps,
    );
    let mut constants = shares.constants();
    constants.push(("EPS", f64::from(eps)));
    let total = dispatch(
        shader!("batch_norm_param_grad", "dispatch", "channels"),
        constants,
        vec![ScratchRead(0), ScratchRead(1), Input(3), Output(0), Output(1)],
        shape[1],
        caps,
    );
    Lowered { dispatches: vec![partial, total], scratch_bytes: vec![4 * shares.len(); 2] }
}

/// The rows and the length of a row of a tensor that is normalised over its last dimension.
fn rows_of(shape: &[usize]) -> [usize; 2] {
    let d = shape.last().copied().unwrap_or(1);
    [shape.iter().product::<usize>() / d.max(1), d]
}

fn layer_norm(
    shader: crate::gpu::kernel::Shader,
    eps: Option<f32>,
    bound: Bound,
    caps: &DeviceCaps,
) -> Lowered {
    let [rows, d] = rows_of(&bound.outputs[0].shape);
    let lanes = row_lanes(d, caps);
    let mut constants = vec![("ROWS", rows as f64), ("D", d as f64), ("LANES", f64::from(lanes))];
    constants.extend(eps.map(|eps| ("EPS", f64::from(eps))));
    single(shader, constants, bound, rows * lanes as usize, caps)
}

fn layer_norm_param_grad(bound: Bound, caps: &DeviceCaps) -> Lowered {
    let [rows, d] = rows_of(&bound.inputs[1].shape);
    let splits = rows.div_ceil(WORKGROUP as usize).min(64);
    let constants =
        |splits: usize| vec![("ROWS", rows as f64), ("D", d as f64), ("SPLITS", splits as f64)];
    let shader = shader!("layer_norm_param_grad", "dispatch")
        .with_stores(false, param_gradient_stores(bound));
    if splits == 1 {
        return single(shader, constants(1), bound, d, caps);
    }
    let inputs = (0..4).map(Input);
    let partial = dispatch(
        shader.clone(),
        constants(splits),
        inputs.chain([ScratchWrite(0), ScratchWrite(1)]).collect(),
        splits * d,
        caps,
    );
    let total =
        |i| reduce([1, splits, d], 1, 1.0, [ScratchRead(i), Output(i)], [Store::F32; 2], caps);
    Lowered {
        dispatches: vec![partial, total(0), total(1)],
        scratch_bytes: vec![4 * splits * d; 2],
    }
}
