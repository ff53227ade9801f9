//! Mixup and cutmix.

use super::{Constants, shader, single};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered};
use crate::graph::op::{MixKind, Op};

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match *op {
        Op::MixDraw { kind, height, width } => {
            let code = match kind {
                MixKind::Mixup => 0.0,
                MixKind::Cutmix => 1.0,
                MixKind::Either => 2.0,
            };
            let constants = vec![
                ("KIND", code),
                ("HEIGHT", height as f64),
                ("WIDTH", width as f64),
                ("INVERSE_AREA", 1.0 / (height * width) as f64),
            ];
            single(shader!("mix_draw", "dispatch", "header", "rng"), constants, bound, 1, caps)
        }
        Op::Mix => {
            let len = bound.outputs[0].len();
            let constants = geometry(&bound.inputs[0].shape);
            let stores = [("StoreX", bound.inputs[0]), ("StoreY", bound.outputs[0])];
            let shader = shader!("mix", "dispatch", "header").with_stores(false, stores);
            single(shader, constants, bound, len, caps)
        }
        Op::SoftTarget { smoothing, classes } => {
            let constants = vec![
                ("ROWS", bound.inputs[0].len() as f64),
                ("CLASSES", classes as f64),
                ("SMOOTHING", f64::from(smoothing)),
            ];
            let len = bound.outputs[0].len();
            single(shader!("soft_target", "dispatch", "header"), constants, bound, len, caps)
        }
        _ => unreachable!("not a part of mixing: {}", op.name()),
    }
}

/// Rows of a batch, elements of a row, height and width of images; what is no image is one line.
fn geometry(shape: &[usize]) -> Constants {
    let row: usize = shape[1..].iter().product();
    let [height, width] = match *shape {
        [_, _, height, width] => [height, width],
        _ => [1, row],
    };
    let sizes = [("ROWS", shape[0]), ("ROW", row), ("HEIGHT", height), ("WIDTH", width)];
    sizes.into_iter().map(|(name, size)| (name, size as f64)).collect()
}
