//! Batch norm, layer norm and root mean square norm.

use super::sums::{Shares, reduce};
use super::tiles::{self, Tiles};
use super::{
    WORKGROUP, activation_code, by, dispatch, element_shader, part, row_lanes, shader, single,
};
use crate::gpu::kernel::Binding::{Input, Output, ScratchRead, ScratchWrite};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered, Shader, Store};
use crate::graph::Tensor;
use crate::graph::op::{Activation, Op};

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match *op {
        Op::BatchNormStats { momentum } => batch_norm_stats(momentum, bound, caps),
        Op::BatchNorm { eps, activation, residual } => {
            batch_norm(eps, activation, residual, bound, caps)
        }
        Op::BatchNormParamGrad { eps, relu } => batch_norm_param_grad(eps, relu, bound, caps),
        Op::BatchNormInputGrad { eps, relu } => {
            let shares = Shares::of_map(&bound.outputs[0].shape, caps);
            let shader = element_shader!(
                shares.four,
                "batch_norm_input_grad",
                "dispatch",
                "header",
                "channels",
                "batch_norm_value"
            )
            .with_stores(shares.four, gradient_stores(bound));
            let mut constants = shares.constants();
            constants.extend([("EPS", f64::from(eps)), ("RELU", f64::from(u8::from(relu)))]);
            single(shader, constants, bound, shares.len(), caps)
        }
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

fn batch_norm(
    eps: f32,
    activation: Activation,
    residual: bool,
    bound: Bound,
    caps: &DeviceCaps,
) -> Lowered {
    let shares = Shares::of_map(&bound.outputs[0].shape, caps);
    let four = shares.four;
    let tensors = [("StoreX", bound.inputs[0]), ("StoreY", bound.outputs[0])];
    let shader = element_shader!(
        four,
        "batch_norm",
        "dispatch",
        "channels",
        "gelu",
        "activation",
        "batch_norm_value"
    )
    .with_part(by(four, part!("activation1"), part!("activation4")))
    .with_stores(four, tensors);
    let shader = match residual {
        false => shader.with_part(part!("batch_norm_plain")),
        true => shader
            .with_part(part!("batch_norm_residual"))
            .with_stores(four, [("StoreResidual", bound.inputs[5])]),
    };
    let mut constants = shares.constants();
    constants.extend([("EPS", f64::from(eps)), ("ACTIVATION", activation_code(activation))]);
    single(shader, constants, bound, shares.len(), caps)
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

fn batch_norm_stats(momentum: f32, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let x = bound.inputs[0];
    let momentum = ("MOMENTUM", f64::from(momentum));
    let partials = vec![Input(0), Input(1), ScratchWrite(0), ScratchWrite(1)];
    let bindings =
        vec![ScratchRead(0), ScratchRead(1), Input(1), Output(0), Output(1), Output(2), Output(3)];
    if let Some(tiles) = Tiles::of(&x.shape, caps) {
        let shader = element_shader!(
            tiles.four,
            "batch_norm_stats_tiles",
            "dispatch",
            "header",
            "rows",
            "channel_tiles"
        )
        .with_stores(tiles.four, [("StoreX", x)]);
        let partial = tiles.dispatch(shader, vec![], partials, caps);
        let lanes = merge_lanes(tiles.count, caps);
        let mut constants = tiles.constants();
        constants.extend([("LANES", f64::from(lanes)), momentum]);
        constants.push(("TILE_NUMBERS", tiles::NUMBERS as f64));
        let shader =
            shader!("batch_norm_stats_merge", "dispatch", "header", "rows", "batch_norm_keep");
        let merge = dispatch(shader, constants, bindings, x.shape[1] * lanes as usize, caps);
        let scratch_bytes = vec![4 * tiles.total(); 2];
        return Lowered { dispatches: vec![partial, merge], scratch_bytes };
    }
    let shares = Shares::of(&x.shape, caps);
    let shader =
        element_shader!(shares.four, "batch_norm_stats_partial", "dispatch", "header", "channels")
            .with_stores(shares.four, [("StoreX", x)]);
    let partial = dispatch(shader, shares.constants(), partials, shares.len(), caps);
    let mut constants = shares.constants();
    constants.push(momentum);
    let shader = shader!("batch_norm_stats", "dispatch", "header", "channels", "batch_norm_keep");
    let merge = dispatch(shader, constants, bindings, x.shape[1], caps);
    Lowered { dispatches: vec![partial, merge], scratch_bytes: vec![4 * shares.len(); 2] }
}

fn batch_norm_param_grad(eps: f32, relu: bool, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let shape = &bound.inputs[1].shape;
    let own = vec![("EPS", f64::from(eps)), ("RELU", f64::from(u8::from(relu)))];
    let bindings = (0..6).map(Input).chain([ScratchWrite(0), ScratchWrite(1)]).collect();
    let stores = param_gradient_stores(bound);
    let (partial, shares) = match Tiles::of(shape, caps) {
        Some(tiles) => {
            let shader = element_shader!(
                tiles.four,
                "batch_norm_param_grad_tiles",
                "dispatch",
                "rows",
                "channel_tiles",
                "batch_norm_value"
            );
            let shader = shader.with_stores(tiles.four, stores);
            (tiles.dispatch(shader, own, bindings, caps), Shares::of_tiles(shape, tiles.count))
        }
        None => {
            let shares = Shares::of(shape, caps);
            let shader = element_shader!(
                shares.four,
                "batch_norm_param_grad_partial",
                "dispatch",
                "channels",
                "batch_norm_value"
            );
            let shader = shader.with_stores(shares.four, stores);
            let constants = [shares.constants(), own].concat();
            (dispatch(shader, constants, bindings, shares.len(), caps), shares)
        }
    };
    let lanes = merge_lanes(shares.len() / shape[1], caps);
    let mut constants = shares.constants();
    constants.extend([("EPS", f64::from(eps)), ("LANES", f64::from(lanes))]);
    let total = dispatch(
        shader!("batch_norm_param_grad", "dispatch", "rows", "channels"),
        constants,
        vec![ScratchRead(0), ScratchRead(1), Input(5), Output(0), Output(1)],
        shape[1] * lanes as usize,
        caps,
    );
    Lowered { dispatches: vec![partial, total], scratch_bytes: vec![4 * shares.len(); 2] }
}

/// How many invocations merge so many partial results of a channel.
fn merge_lanes(partials: usize, caps: &DeviceCaps) -> u32 {
    if caps.software || partials <= 4 { 1 } else { WORKGROUP }
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
