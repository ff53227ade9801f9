//! The choice of the next token: a workgroup a row.

use super::{SOFTWARE_TURNS, fold, inputs_and_outputs, shader};
use crate::gpu::kernel::{Bound, DeviceCaps, Dispatch, Lowered};
use crate::graph::choice::{ALTERNATIVES_MAX, CHOICE_LEN};

/// Invocations of a workgroup: a vocabulary has tens of thousands of tokens, and a step few rows. On software adapters too,
/// though barriers cost them much, and more of them where an invocation would go on for too long.
const WIDE: u32 = 256;

/// How often an invocation goes over its tokens at most: a bit of a key at a time for top-k and top-p, once for each
/// alternative, and a few times besides.
const ROUNDS: usize = 2 * 32 + ALTERNATIVES_MAX + 10;

fn lanes(vocabulary: usize, caps: &DeviceCaps) -> u32 {
    let mut lanes = WIDE.min(caps.max_invocations);
    let goes_on = |lanes: u32| ROUNDS * vocabulary.div_ceil(lanes as usize) > SOFTWARE_TURNS;
    while caps.software && goes_on(lanes) && 2 * lanes <= caps.max_invocations {
        lanes *= 2;
    }
    lanes
}

pub(super) fn lower(bound: Bound, caps: &DeviceCaps) -> Lowered {
    let &[rows, vocabulary] = bound.inputs[0].shape.as_slice() else {
        unreachable!("logits have two dimensions")
    };
    let lanes = lanes(vocabulary, caps);
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
