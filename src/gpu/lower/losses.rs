//! Losses, accuracy and the metrics of a step.

use super::{WORKGROUP, row_lanes, shader, single};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered};
use crate::graph::op::Op;

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let shape = &bound.inputs[0].shape;
    let rows = shape[0];
    let width = || shape[1..].iter().product::<usize>();
    match *op {
        Op::CrossEntropy { smoothing, gradient, per_sample, first } => {
            let lanes = row_lanes(width(), caps);
            let constants = vec![
                ("ROWS", rows as f64),
                ("CLASSES", width() as f64),
                ("SMOOTHING", f64::from(smoothing)),
                ("PER_SAMPLE", per_sample as f64),
                ("FIRST_ROW", first as f64),
                ("LANES", f64::from(lanes)),
            ];
            let shader = match gradient {
                true => {
                    shader!("cross_entropy_grad", "dispatch", "header", "rows", "cross_entropy")
                }
                false => shader!("cross_entropy", "dispatch", "header", "rows", "cross_entropy"),
            };
            single(shader, constants, bound, rows * lanes as usize, caps)
        }
        Op::SoftCrossEntropy { gradient } => {
            let lanes = row_lanes(width(), caps);
            let constants = vec![
                ("ROWS", rows as f64),
                ("CLASSES", width() as f64),
                ("LANES", f64::from(lanes)),
            ];
            let shader = match gradient {
                true => shader!(
                    "soft_cross_entropy_grad",
                    "dispatch",
                    "header",
                    "rows",
                    "soft_cross_entropy"
                ),
                false => shader!(
                    "soft_cross_entropy",
                    "dispatch",
                    "header",
                    "rows",
                    "soft_cross_entropy"
                ),
            };
            single(shader, constants, bound, rows * lanes as usize, caps)
        }
        Op::MeanSquaredError { gradient } => {
            let lanes = row_lanes(width(), caps);
            let constants =
                vec![("ROWS", rows as f64), ("D", width() as f64), ("LANES", f64::from(lanes))];
            let shader = match gradient {
                true => shader!(
                    "mean_squared_error_grad",
                    "dispatch",
                    "header",
                    "rows",
                    "mean_squared_error"
                ),
                false => shader!(
                    "mean_squared_error",
                    "dispatch",
                    "header",
                    "rows",
                    "mean_squared_error"
                ),
            };
            single(shader, constants, bound, rows * lanes as usize, caps)
        }
        Op::Accuracy => {
            let shader = shader!("accuracy", "dispatch", "header");
            single(shader, vec![("CLASSES", width() as f64)], bound, rows, caps)
        }
        Op::StepMetrics { accuracy, per_sample } => {
            let constants = vec![
                ("ROWS", rows as f64),
                ("PER_SAMPLE", per_sample as f64),
                ("LANES", f64::from(WORKGROUP)),
            ];
            let shader = match accuracy {
                true => shader!("step_metrics_accuracy", "dispatch", "header", "rows"),
                false => shader!("step_metrics", "dispatch", "header", "rows"),
            };
            single(shader, constants, bound, 1, caps)
        }
        _ => unreachable!("not a loss: {}", op.name()),
    }
}
