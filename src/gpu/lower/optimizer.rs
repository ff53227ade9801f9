//! The optimizer: the norm of all gradients, the decision, and the update.

use super::sums::reduce;
use super::{WORKGROUP, by_four, dispatch, element_shader, elements, shader, single};
use crate::gpu::kernel::Binding::{Input, Output, ScratchRead, ScratchWrite};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered, Store};
use crate::graph::op::{
    GRAD_PARTIALS, LOSS_SCALE_GROWTH_INTERVAL, LOSS_SCALE_LOG2, LOSS_SCALE_LOG2_MAX,
    LOSS_SCALE_LOG2_MIN, Op, UpdateRule,
};

/// Invocations that sum squares, for each partial sum: together enough to fill a large GPU.
const SHARES: usize = 64;

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match *op {
        Op::GradSquares => grad_squares(bound, caps),
        Op::OptimizerControl { max_norm, beta1, beta2, scaled } => {
            control([max_norm, beta1, beta2], scaled, bound, caps)
        }
        Op::OptimizerUpdate { rule } => update(rule, bound, caps),
        Op::MovingAverage { share } => {
            let len = bound.outputs[0].len();
            let shader = element_shader!(by_four(len), "moving_average", "dispatch");
            single(shader, vec![("SHARE", f64::from(share))], bound, elements(len), caps)
        }
        Op::GradAccumulate => {
            let len = bound.outputs[0].len();
            let shader = element_shader!(by_four(len), "grad_accumulate", "dispatch", "header");
            single(shader, vec![], bound, elements(len), caps)
        }
        Op::AddTo => {
            let len = bound.outputs[0].len();
            let shader = element_shader!(by_four(len), "add_to", "dispatch");
            single(shader, vec![], bound, elements(len), caps)
        }
        _ => unreachable!("not a part of the optimizer: {}", op.name()),
    }
}

fn grad_squares(bound: Bound, caps: &DeviceCaps) -> Lowered {
    let len = bound.inputs[0].len();
    let shader = element_shader!(by_four(len), "grad_squares", "dispatch");
    let shares = elements(len).div_ceil(GRAD_PARTIALS * SHARES).min(SHARES);
    let stride = shares * GRAD_PARTIALS;
    let constants = vec![("STRIDE", stride as f64)];
    if shares == 1 {
        return single(shader, constants, bound, stride, caps);
    }
    let squares = dispatch(shader, constants, vec![Input(0), ScratchWrite(0)], stride, caps);
    let dims = [1, shares, GRAD_PARTIALS];
    let sums = reduce(dims, 1, 1.0, [ScratchRead(0), Output(0)], [Store::F32; 2], caps);
    Lowered { dispatches: vec![squares, sums], scratch_bytes: vec![4 * stride] }
}

fn control(
    [max_norm, beta1, beta2]: [f32; 3],
    scaled: bool,
    bound: Bound,
    caps: &DeviceCaps,
) -> Lowered {
    let constants = vec![
        // Constants must be finite; nothing finite is above this one.
        ("MAX_NORM", f64::from(max_norm.min(f32::MAX))),
        ("BETA1", f64::from(beta1)),
        ("BETA2", f64::from(beta2)),
        ("SCALED", f64::from(u8::from(scaled))),
        ("LOG2_START", f64::from(LOSS_SCALE_LOG2)),
        ("LOG2_MIN", f64::from(LOSS_SCALE_LOG2_MIN)),
        ("LOG2_MAX", f64::from(LOSS_SCALE_LOG2_MAX)),
        ("GROWTH_INTERVAL", f64::from(LOSS_SCALE_GROWTH_INTERVAL)),
        ("LANES", f64::from(WORKGROUP)),
    ];
    let shader = shader!("optimizer_control", "dispatch", "rows", "loss_scale");
    single(shader, constants, bound, 1, caps)
}

fn update(rule: UpdateRule, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let len = bound.outputs[0].len();
    let four = by_four(len);
    let (shader, constants) = match rule {
        UpdateRule::Sgd { momentum, nesterov, weight_decay } => {
            let mut constants = vec![("WEIGHT_DECAY", f64::from(weight_decay))];
            if rule.moments() == 0 {
                (element_shader!(four, "optimizer_update_sgd", "dispatch", "header"), constants)
            } else {
                constants.push(("MOMENTUM", f64::from(momentum)));
                constants.push(("NESTEROV", f64::from(u8::from(nesterov))));
                (
                    element_shader!(four, "optimizer_update_momentum", "dispatch", "header"),
                    constants,
                )
            }
        }
        UpdateRule::Adam { beta1, beta2, eps, weight_decay, decoupled } => {
            let constants = vec![
                ("BETA1", f64::from(beta1)),
                ("BETA2", f64::from(beta2)),
                ("EPS", f64::from(eps)),
                ("WEIGHT_DECAY", f64::from(weight_decay)),
                ("DECOUPLED", f64::from(u8::from(decoupled))),
            ];
            (element_shader!(four, "optimizer_update_adam", "dispatch", "header"), constants)
        }
    };
    single(shader, constants, bound, elements(len), caps)
}
