//! Tensors put together, cut and turned.

use super::{shader, single};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered};
use crate::graph::op::Op;

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let (x, y) = (&bound.inputs[0].shape, &bound.outputs[0].shape);
    // Elements from a dimension on: those of a row, whatever stands before it.
    let tail = |shape: &[usize], axis: usize| shape[axis..].iter().product::<usize>() as f64;
    let (shader, constants) = match *op {
        Op::Concat { axis } => {
            let lens =
                vec![("A_LEN", tail(x, axis)), ("B_LEN", tail(&bound.inputs[1].shape, axis))];
            (shader!("concat", "dispatch"), lens)
        }
        Op::Slice { axis, start, .. } => {
            let constants = vec![
                ("X_LEN", tail(x, axis)),
                ("Y_LEN", tail(y, axis)),
                ("START", start as f64 * tail(x, axis + 1)),
            ];
            (shader!("slice", "dispatch"), constants)
        }
        Op::Unslice { axis, start, .. } => {
            let constants = vec![
                ("X_LEN", tail(x, axis)),
                ("Y_LEN", tail(y, axis)),
                ("START", start as f64 * tail(x, axis + 1)),
            ];
            (shader!("unslice", "dispatch"), constants)
        }
        Op::Transpose => {
            let constants = vec![("ROWS", x[1] as f64), ("COLUMNS", x[2] as f64)];
            (shader!("transpose", "dispatch"), constants)
        }
        _ => unreachable!("not a rearrangement: {}", op.name()),
    };
    let shader = match op {
        Op::Concat { .. } => {
            shader.with_stores(false, [("StoreA", bound.inputs[0]), ("StoreB", bound.inputs[1])])
        }
        _ => shader.with_stores(false, [("StoreX", bound.inputs[0])]),
    };
    let shader = shader.with_stores(false, [("StoreY", bound.outputs[0])]);
    single(shader, constants, bound, bound.outputs[0].len(), caps)
}
