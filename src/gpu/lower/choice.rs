//! The choice of the next token: a workgroup a row.

use super::{fold, inputs_and_outputs, shader};
use crate::gpu::kernel::{Bound, DeviceCaps, Dispatch, Lowered};
use crate::graph::choice::{ALTERNATIVES_MAX, CHOICE_LEN};

/// Invocations of a workgroup: a vocabulary has tens of thousands of tokens, and a step few rows. On software adapters too,
/// though barriers cost them much: llvmpipe ends all loops of an invocation after 65,535 turns together.
const WIDE: u32 = 256;

pub(super) fn lower(bound: Bound, caps: &DeviceCaps) -> Lowered {
    let &[rows, vocabulary] = bound.inputs[0].shape.as_slice() else {
        unreachable!("logits have two dimensions")
    };
    let lanes = WIDE.min(caps.max_invocations);
    let constants = vec![
        ("ROWS", rows as f64),
        ("VOCABULARY", vocabulary as f64),
        ("WORDS", (bound.inputs[1].shape[1] - CHOICE_LEN) as f64),
        ("TEXTS", bound.outputs[1].shape[0] as f64),
        ("WORKGROUP_SIZE", f64::from(lanes)),
        ("LANES", f64::from(lanes)),
    ];
    let shader = shader!("choose_token", "dispatch", "rows")
        .with_const("CHOICE", CHOICE_LEN as u32)
        .with_const("ALTERNATIVES", ALTERNATIVES_MAX as u32);
    let (bindings, workgroups) = (inputs_and_outputs(bound), fold(rows, caps));
    let dispatch = Dispatch { shader, constants, bindings, workgroups, guarded: true };
    Lowered { dispatches: vec![dispatch], scratch_bytes: vec![] }
}
