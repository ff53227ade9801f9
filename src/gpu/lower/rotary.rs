//! Queries and keys turned by their positions.

use super::{Constants, dispatch, part, shader};
use crate::gpu::kernel::Binding::{Input, Output};
use crate::gpu::kernel::{Binding, Bound, DeviceCaps, Lowered, Shader};
use crate::graph::Tensor;
use crate::graph::op::Op;

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match *op {
        Op::Rotary { positions } => {
            let [q, k, v, table, ..] = bound.inputs[..] else { unreachable!("four inputs") };
            let stores =
                [("StoreQ", q), ("StoreK", k), ("StoreV", v), ("StoreQkv", bound.outputs[0])];
            let shader = shader!("rotary", "dispatch", "rotary").with_stores(false, stores);
            let bindings = (0..4).map(Input).chain([Output(0)]).collect();
            turned(shader, bindings, positions.then_some(4), [q, k, table], caps)
        }
        Op::RotaryGrad { positions } => {
            let (dqkv, table) = (bound.inputs[0], bound.inputs[1]);
            let [dq, dk, dv] = [0, 1, 2].map(|i| bound.outputs[i]);
            let stores = [("StoreDqkv", dqkv), ("StoreDq", dq), ("StoreDk", dk), ("StoreDv", dv)];
            let shader = shader!("rotary_grad", "dispatch", "rotary").with_stores(false, stores);
            let bindings = [Input(0), Input(1)].into_iter().chain((0..3).map(Output)).collect();
            turned(shader, bindings, positions.then_some(2), [dq, dk, table], caps)
        }
        _ => unreachable!("not rotary: {}", op.name()),
    }
}

/// A kernel over all features of all tokens; `positions` is the input that says where they stand, if one does.
fn turned(
    shader: Shader,
    mut bindings: Vec<Binding>,
    positions: Option<usize>,
    [q, k, table]: [&Tensor; 3],
    caps: &DeviceCaps,
) -> Lowered {
    let shader = match positions {
        None => shader.with_part(part!("rotary_places")),
        Some(input) => {
            bindings.push(Input(input));
            let at = bindings.len() as u32 - 1;
            shader.with_const("POSITIONS", at).with_part(part!("rotary_positions"))
        }
    };
    let (tokens, q_width, k_width) = (q.shape[0] * q.shape[1], q.shape[2], k.shape[2]);
    let constants: Constants = [
        ("TOKENS", tokens),
        ("T", q.shape[1]),
        ("ROWS", table.shape[0]),
        ("HEAD", table.shape[1]),
        ("Q_WIDTH", q_width),
        ("K_WIDTH", k_width),
    ]
    .map(|(name, size)| (name, size as f64))
    .to_vec();
    let invocations = tokens * (q_width + 2 * k_width);
    let dispatch = dispatch(shader, constants, bindings, invocations, caps);
    Lowered { dispatches: vec![dispatch], scratch_bytes: vec![] }
}
