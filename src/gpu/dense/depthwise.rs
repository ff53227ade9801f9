//! Convolutions whose channels are groups of their own, as in MobileNet (Howard et al., 2017): a product
//! of one row for each would waste a tile, so every invocation computes an element directly.

use super::conv::Shapes;
use super::product::{Epilogue, Step, Work};
use super::shaders;
use crate::gpu::kernel::{Binding, Bound, DeviceCaps};

/// Pixels for each invocation of a chunk of the gradient of weights, at least.
const CHUNK_MIN: usize = 64 * 16;
/// Workgroups to aim for there.
const WORKGROUPS: usize = 256;
const SOFTWARE_WORKGROUPS: usize = 32;
/// A software adapter (llvmpipe) ends a shader's loops after 65535 rounds, each of 64 pixels here.
const CHUNK_MAX: usize = 64 * 60_000;

/// Whether a convolution and its gradients are computed so. Kernels too large for the registers of an
/// invocation are not.
pub(super) fn suits(shapes: &Shapes) -> bool {
    shapes.inputs() == 1 && shapes.x[0] > 1 && shapes.taps() <= 25
}

/// y from x, w and perhaps a bias.
pub(super) fn forward(shapes: &Shapes, epilogue: Epilogue, bound: Bound) -> Work {
    let mut bindings = vec![Binding::Input(0), Binding::Input(1), Binding::Output(0)];
    bindings.extend(epilogue.bias);
    let shader = shaders::depthwise(bound, epilogue.bias.is_some());
    let mut step = elements(shader, shapes, bound, bindings);
    step.constants.push(epilogue.activation());
    Work { before: vec![step], ..Work::default() }
}

/// dx from dy and w.
pub(super) fn input_grad(shapes: &Shapes, bound: Bound) -> Work {
    let bindings = vec![Binding::Input(0), Binding::Input(1), Binding::Output(0)];
    let shader = shaders::depthwise_input_grad(bound);
    Work { before: vec![elements(shader, shapes, bound, bindings)], ..Work::default() }
}

/// A step with an invocation for each element of the output.
fn elements(
    shader: crate::gpu::kernel::Shader,
    shapes: &Shapes,
    bound: Bound,
    bindings: Vec<Binding>,
) -> Step {
    let len = bound.outputs[0].len();
    let mut constants = shapes.constants(1);
    constants.push(("LEN", len as f64));
    Step { shader, constants, bindings, elements: len }
}

/// dw from x and dy: chunks of the sums, then the sums.
pub(super) fn weight_grad(shapes: &Shapes, bound: Bound, caps: &DeviceCaps) -> Work {
    let [outputs, height, width] = shapes.y;
    let pixels = shapes.images * height * width;
    let wanted = if caps.software { SOFTWARE_WORKGROUPS } else { WORKGROUPS };
    let splits = (wanted / outputs).clamp(1, pixels.div_ceil(CHUNK_MIN));
    let chunk = pixels.div_ceil(splits).min(CHUNK_MAX);
    let splits = pixels.div_ceil(chunk);
    let mut constants = shapes.constants(1);
    let own = [("PIXELS", pixels), ("CHUNK", chunk), ("SPLITS", splits)];
    constants.extend(own.map(|(name, value)| (name, value as f64)));
    let chunks = Step {
        shader: shaders::depthwise_weight_grad(bound, shapes.taps()),
        constants,
        bindings: vec![Binding::Input(0), Binding::Input(1), Binding::ScratchWrite(0)],
        // A workgroup for each chunk of each channel.
        elements: splits * outputs * crate::gpu::lower::WORKGROUP as usize,
    };
    let len = outputs * shapes.taps();
    let sums = [("SPLITS", splits), ("GROUPS", 1), ("ROWS", outputs), ("COLS", shapes.taps())];
    let sum = Step {
        shader: shaders::sum_of_rows(bound.outputs[0].dtype),
        constants: sums.map(|(name, value)| (name, value as f64)).to_vec(),
        bindings: vec![Binding::ScratchRead(0), Binding::Output(0)],
        elements: len,
    };
    Work { before: vec![chunks, sum], scratch: vec![splits * len], ..Work::default() }
}
