//! Operations that map elements to elements.

use super::{Constants, by, channels, element_shader, elements, part, shader, single};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered, Shader};
use crate::graph::op::{LOSS_SCALE_LOG2, Op};

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let (x, y) = (bound.inputs[0], bound.outputs[0]);
    let len = y.len();
    let four = super::by_four(len);
    let (shader, constants, invocations) = match *op {
        Op::NormalizeU8 => {
            // Four bytes, which are a word, to an invocation.
            (shader!("normalize_u8", "dispatch"), channel_constants(&x.shape), len.div_ceil(4))
        }
        Op::AugmentU8 => {
            let mut constants = channel_constants(&x.shape);
            constants.push(("WIDTH", x.shape[3] as f64));
            (shader!("augment_u8", "dispatch", "framing"), constants, len.div_ceil(4))
        }
        Op::Relu => (element_shader!(four, "relu", "dispatch"), vec![], elements(len)),
        Op::ReluGrad => (element_shader!(four, "relu_grad", "dispatch"), vec![], elements(len)),
        Op::Gelu => {
            let shader = element_shader!(four, "gelu", "dispatch", "gelu");
            (shader.with_part(by(four, part!("gelu1"), part!("gelu4"))), vec![], elements(len))
        }
        Op::GeluGrad => {
            let shader = element_shader!(four, "gelu_grad", "dispatch", "gelu");
            (shader.with_part(by(four, part!("gelu1"), part!("gelu4"))), vec![], elements(len))
        }
        Op::GeluTanh => {
            (element_shader!(four, "gelu_tanh", "dispatch", "gelu_tanh"), vec![], elements(len))
        }
        Op::GeluTanhGrad => (
            element_shader!(four, "gelu_tanh_grad", "dispatch", "gelu_tanh"),
            vec![],
            elements(len),
        ),
        Op::SwiGlu => (element_shader!(four, "swiglu", "dispatch"), vec![], elements(len)),
        Op::SwiGluGrad => (element_shader!(four, "swiglu_grad", "dispatch"), vec![], elements(len)),
        Op::Add => (element_shader!(four, "add", "dispatch"), vec![], elements(len)),
        Op::AddReluGrad => {
            (element_shader!(four, "add_relu_grad", "dispatch"), vec![], elements(len))
        }
        Op::Mul => (element_shader!(four, "mul", "dispatch"), vec![], elements(len)),
        Op::Scale { factor } => {
            let constants = vec![("FACTOR", f64::from(factor))];
            (element_shader!(four, "scale", "dispatch"), constants, elements(len))
        }
        Op::Cast => (element_shader!(four, "cast", "dispatch"), vec![], elements(len)),
        Op::LossScale => {
            let constants = vec![("LOG2_START", f64::from(LOSS_SCALE_LOG2))];
            let shader = element_shader!(four, "loss_scale", "dispatch", "loss_scale");
            (shader, constants, elements(len))
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
            let shader = element_shader!(four, "dropout", "dispatch", "header", "rng")
                .with_part(by(four, part!("dropout1"), part!("dropout4")));
            (shader, constants, elements(len))
        }
        _ => unreachable!("not an elementwise operation: {}", op.name()),
    };
    // Those that take four elements at once say so by their number.
    let shader = stored(op, shader, bound, invocations < len);
    single(shader, constants, bound, invocations, caps)
}

/// Sets the storage types of a shader's tensors.
fn stored(op: &Op, shader: Shader, bound: Bound, four: bool) -> Shader {
    let (x, y) = (bound.inputs[0], bound.outputs[0]);
    match op {
        Op::NormalizeU8 | Op::AugmentU8 => shader.with_stores(false, [("StoreY", y)]),
        Op::ReluGrad => {
            let tensors = [("StoreDy", x), ("StoreY", bound.inputs[1]), ("StoreDx", y)];
            shader.with_stores(four, tensors)
        }
        Op::GeluGrad | Op::GeluTanhGrad => {
            let tensors = [("StoreDy", x), ("StoreX", bound.inputs[1]), ("StoreDx", y)];
            shader.with_stores(four, tensors)
        }
        Op::SwiGlu => {
            let tensors = [("StoreGate", x), ("StoreUp", bound.inputs[1]), ("StoreY", y)];
            shader.with_stores(four, tensors)
        }
        Op::SwiGluGrad => {
            let [_, gate, up] = bound.inputs[..] else { unreachable!("three inputs") };
            let inputs = [("StoreDy", x), ("StoreGate", gate), ("StoreUp", up)];
            let outputs = [("StoreDgate", y), ("StoreDup", bound.outputs[1])];
            shader.with_stores(four, inputs).with_stores(four, outputs)
        }
        Op::AddReluGrad => {
            let [_, b, gate] = bound.inputs[..] else { unreachable!("three inputs") };
            let tensors = [("StoreA", x), ("StoreB", b), ("StoreY", gate), ("StoreDx", y)];
            shader.with_stores(four, tensors)
        }
        Op::Add | Op::Mul => {
            let tensors = [("StoreA", x), ("StoreB", bound.inputs[1]), ("StoreY", y)];
            shader.with_stores(four, tensors)
        }
        _ => shader.with_stores(four, [("StoreX", x), ("StoreY", y)]),
    }
}

fn channel_constants(shape: &[usize]) -> Constants {
    let [_, channels, plane] = channels(shape);
    vec![("CHANNELS", channels as f64), ("PLANE", plane as f64)]
}
