//! Operations that map elements to elements.

use super::{Constants, channels, shader, single};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered};
use crate::graph::op::Op;

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let x = bound.inputs[0];
    let y = bound.outputs[0];
    let (shader, constants) = match *op {
        Op::NormalizeU8 => {
            let shader = shader!("normalize_u8", "dispatch");
            // Four bytes to an invocation.
            return single(shader, channel_constants(&x.shape), bound, y.len().div_ceil(4), caps);
        }
        Op::Bias => (shader!("bias", "dispatch"), channel_constants(&x.shape)),
        Op::Relu => (shader!("relu", "dispatch"), vec![]),
        Op::ReluGrad => (shader!("relu_grad", "dispatch"), vec![]),
        Op::Gelu => (shader!("gelu", "dispatch", "gelu"), vec![]),
        Op::GeluGrad => (shader!("gelu_grad", "dispatch", "gelu"), vec![]),
        Op::Add => (shader!("add", "dispatch"), vec![]),
        Op::Mul => (shader!("mul", "dispatch"), vec![]),
        Op::Scale { factor } => (shader!("scale", "dispatch"), vec![("FACTOR", f64::from(factor))]),
        Op::Broadcast { axis, len, factor } => {
            let inner: usize = x.shape[axis..].iter().product();
            let constants =
                vec![("LEN", len as f64), ("INNER", inner as f64), ("FACTOR", f64::from(factor))];
            (shader!("broadcast", "dispatch"), constants)
        }
        Op::Dropout { p, salt } => {
            let constants = vec![
                ("THRESHOLD", f64::from((f64::from(p) * 4_294_967_296.0) as u32)),
                ("SCALE", f64::from(1.0 / (1.0 - p))),
                ("SALT", f64::from(salt)),
            ];
            (shader!("dropout", "dispatch", "header", "rng"), constants)
        }
        _ => unreachable!("not an elementwise operation: {}", op.name()),
    };
    single(shader, constants, bound, y.len(), caps)
}

fn channel_constants(shape: &[usize]) -> Constants {
    let [_, channels, plane] = channels(shape);
    vec![("CHANNELS", channels as f64), ("PLANE", plane as f64)]
}
