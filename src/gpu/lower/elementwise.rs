//! Operations that map elements to elements.

use super::{Constants, channels, element_shader, elements, shader, single};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered};
use crate::graph::op::Op;

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let x = bound.inputs[0];
    let len = bound.outputs[0].len();
    let four = super::by_four(len);
    let (shader, constants, invocations) = match *op {
        Op::NormalizeU8 => {
            // Four bytes, which are a word, to an invocation.
            (shader!("normalize_u8", "dispatch"), channel_constants(&x.shape), len.div_ceil(4))
        }
        Op::Bias => (shader!("bias", "dispatch"), channel_constants(&x.shape), len),
        Op::Relu => (element_shader!(four, "relu", "dispatch"), vec![], elements(len)),
        Op::ReluGrad => (element_shader!(four, "relu_grad", "dispatch"), vec![], elements(len)),
        Op::Gelu => (shader!("gelu", "dispatch", "gelu"), vec![], len),
        Op::GeluGrad => (shader!("gelu_grad", "dispatch", "gelu"), vec![], len),
        Op::Add => (element_shader!(four, "add", "dispatch"), vec![], elements(len)),
        Op::AddReluGrad => {
            (element_shader!(four, "add_relu_grad", "dispatch"), vec![], elements(len))
        }
        Op::Mul => (element_shader!(four, "mul", "dispatch"), vec![], elements(len)),
        Op::Scale { factor } => {
            let constants = vec![("FACTOR", f64::from(factor))];
            (element_shader!(four, "scale", "dispatch"), constants, elements(len))
        }
        Op::Broadcast { axis, len: repeats, factor } => {
            let inner: usize = x.shape[axis..].iter().product();
            let constants = vec![
                ("LEN", repeats as f64),
                ("INNER", inner as f64),
                ("FACTOR", f64::from(factor)),
            ];
            (shader!("broadcast", "dispatch"), constants, len)
        }
        Op::Dropout { p, salt } => {
            let constants = vec![
                ("THRESHOLD", f64::from((f64::from(p) * 4_294_967_296.0) as u32)),
                ("SCALE", f64::from(1.0 / (1.0 - p))),
                ("SALT", f64::from(salt)),
            ];
            (shader!("dropout", "dispatch", "header", "rng"), constants, len)
        }
        _ => unreachable!("not an elementwise operation: {}", op.name()),
    };
    single(shader, constants, bound, invocations, caps)
}

fn channel_constants(shape: &[usize]) -> Constants {
    let [_, channels, plane] = channels(shape);
    vec![("CHANNELS", channels as f64), ("PLANE", plane as f64)]
}
