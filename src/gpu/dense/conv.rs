//! Convolutions and their gradients as products, one product for each group of channels.

use super::product::{Epilogue, Product, Step, Work};
use super::shaders::{self, Types, Variant};
use super::{depthwise, types, winograd};
use crate::batch::DType;
use crate::gpu::kernel::{Binding, Bound, DeviceCaps};
use crate::graph::op::{Activation, ConvGeometry};

/// The shapes of a convolution.
pub(super) struct Shapes {
    pub images: usize,
    /// Of x: channels, height, width.
    pub x: [usize; 3],
    /// Of y: channels, height, width.
    pub y: [usize; 3],
    pub kernel: [usize; 2],
    pub geometry: ConvGeometry,
}

impl Shapes {
    fn new(x: &[usize], w: &[usize], y: &[usize], geometry: ConvGeometry) -> Self {
        Self {
            images: x[0],
            x: [x[1], x[2], x[3]],
            y: [y[1], y[2], y[3]],
            kernel: [w[2], w[3]],
            geometry,
        }
    }

    /// Channels of x in a group.
    pub fn inputs(&self) -> usize {
        self.x[0] / self.geometry.groups
    }

    /// Channels of y in a group.
    fn outputs(&self) -> usize {
        self.y[0] / self.geometry.groups
    }

    /// Elements of a kernel's window.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether each pixel of y comes from the same pixel of x alone.
    fn pointwise(&self) -> bool {
        let ConvGeometry { stride, padding, .. } = self.geometry;
        [self.kernel, stride, padding] == [[1, 1], [1, 1], [0, 0]]
    }

    /// What `shared/dense_geometry.wgsl` takes, and the elements of the plane that a part counts by.
    pub fn constants(&self, plane: usize) -> Vec<(&'static str, f64)> {
        let ConvGeometry { stride, padding, .. } = self.geometry;
        [
            ("CHANNELS", self.x[0]),
            ("HEIGHT", self.x[1]),
            ("WIDTH", self.x[2]),
            ("OUT_CHANNELS", self.y[0]),
            ("OUT_HEIGHT", self.y[1]),
            ("OUT_WIDTH", self.y[2]),
            ("KERNEL_HEIGHT", self.kernel[0]),
            ("KERNEL_WIDTH", self.kernel[1]),
            ("STRIDE_Y", stride[0]),
            ("STRIDE_X", stride[1]),
            ("PAD_Y", padding[0]),
            ("PAD_X", padding[1]),
            ("PLANE", plane),
        ]
        .map(|(name, value)| (name, value as f64))
        .to_vec()
    }

    /// Elements of an image's plane.
    fn plane([_, height, width]: [usize; 3]) -> usize {
        height * width
    }
}

/// y from x, w and perhaps a bias.
pub(super) fn forward(
    geometry: ConvGeometry,
    bias: bool,
    activation: Activation,
    bound: Bound,
    caps: &DeviceCaps,
) -> Work {
    let [x, w, y] = [&bound.inputs[0].shape, &bound.inputs[1].shape, &bound.outputs[0].shape];
    let shapes = Shapes::new(x, w, y, geometry);
    let epilogue = Epilogue { bias: bias.then_some(Binding::Input(2)), activation };
    if depthwise::suits(&shapes) {
        return depthwise::forward(&shapes, epilogue, bound);
    }
    if winograd::suits(&shapes, bound, caps) {
        return winograd::convolution(&shapes, epilogue, false);
    }
    let inner = shapes.inputs() * shapes.taps();
    let packed = !inner.is_multiple_of(4);
    let weights = if packed { Binding::ScratchRead(0) } else { Binding::Input(1) };
    let types = types(bound, [1, 0]);
    let types = if packed { Types { a: DType::F32, ..types } } else { types };
    let plane = Shapes::plane(shapes.y);
    let fours = plane.is_multiple_of(4);
    let product = Product {
        groups: geometry.groups,
        rows: shapes.outputs(),
        cols: shapes.images * plane,
        inner,
        operands: [weights, Binding::Input(0)],
        output: Binding::Output(0),
        a_along_inner: true,
        cut: true,
        epilogue,
        constants: shapes.constants(plane),
        variant: match shapes.pointwise() {
            true => Variant::pointwise(types, false, fours),
            false => Variant::conv2d(types, fours),
        },
    };
    let mut work = Work::default();
    if packed {
        work.before.push(packing(&product, &shapes, bound, None, 0));
        work.scratch.push(packed_len(&product));
    }
    work.products.push(product);
    work
}

/// dx from dy and w.
pub(super) fn input_grad(geometry: ConvGeometry, bound: Bound, caps: &DeviceCaps) -> Work {
    let [dy, w, x] = [&bound.inputs[0].shape, &bound.inputs[1].shape, &bound.outputs[0].shape];
    let shapes = Shapes::new(x, w, dy, geometry);
    if depthwise::suits(&shapes) {
        return depthwise::input_grad(&shapes, bound);
    }
    if winograd::suits(&shapes, bound, caps) {
        return winograd::convolution(&shapes, Epilogue::default(), true);
    }
    if let Some(product) = pointwise_input_grad(&shapes, bound) {
        return product.into();
    }
    let [sy, sx] = geometry.stride;
    let phases = (0..sy).flat_map(|y| (0..sx).map(move |x| [y, x]));
    let phases: Vec<Phase> = phases.filter_map(|first| Phase::new(first, &shapes)).collect();
    let mut work = Work::default();
    let reached: usize = phases.iter().map(|phase| phase.size[0] * phase.size[1]).sum();
    if reached < Shapes::plane(shapes.x) {
        // Some pixels are reached by no tap.
        work.before.push(zero(bound));
    }
    for (i, phase) in phases.iter().enumerate() {
        let product = phase.product(&shapes, bound, i);
        work.before.push(packing(&product, &shapes, bound, Some(phase), i));
        work.scratch.push(packed_len(&product));
        work.products.push(product);
    }
    work
}

/// As a product with the weights as they are stored, where a pixel of x reaches its own pixel alone.
fn pointwise_input_grad(shapes: &Shapes, bound: Bound) -> Option<Product> {
    let [rows, inner] = [shapes.inputs(), shapes.outputs()];
    let suits = shapes.pointwise() && shapes.geometry.groups == 1 && rows.is_multiple_of(4);
    let plane = Shapes::plane(shapes.x);
    suits.then(|| Product {
        groups: 1,
        rows,
        cols: shapes.images * plane,
        inner,
        operands: [Binding::Input(1), Binding::Input(0)],
        output: Binding::Output(0),
        a_along_inner: false,
        cut: true,
        epilogue: Epilogue::default(),
        constants: shapes.constants(plane),
        variant: Variant::pointwise(types(bound, [1, 0]), true, plane.is_multiple_of(4)),
    })
}

/// Pixels of x that are reached by the same taps of the kernel: all of them, unless the stride is
/// larger than one.
struct Phase {
    /// The first of the taps; the others follow by the stride.
    tap: [usize; 2],
    /// Their numbers.
    taps: [usize; 2],
    /// The first of the pixels; the others follow by the stride.
    pixel: [usize; 2],
    /// Their numbers in an image.
    size: [usize; 2],
}

impl Phase {
    /// The phase with that first tap, if it has taps and pixels.
    fn new(tap: [usize; 2], shapes: &Shapes) -> Option<Self> {
        let ConvGeometry { stride, padding, .. } = shapes.geometry;
        let along = |i: usize| {
            let taps = shapes.kernel[i].saturating_sub(tap[i]).div_ceil(stride[i]);
            // A pixel at p stands at p + padding in the padded image, and its first tap at the
            // remainder of that.
            let pixel = (tap[i] + stride[i] - padding[i] % stride[i]) % stride[i];
            let pixels = shapes.x[1 + i].saturating_sub(pixel).div_ceil(stride[i]);
            (taps, pixel, pixels)
        };
        let [y, x] = [along(0), along(1)];
        let some = y.0 * x.0 * y.2 * x.2 > 0;
        some.then_some(Self { tap, taps: [y.0, x.0], pixel: [y.1, x.1], size: [y.2, x.2] })
    }

    fn constants(&self) -> [(&'static str, f64); 6] {
        [
            ("PHASE_Y", self.tap[0]),
            ("PHASE_X", self.tap[1]),
            ("FIRST_Y", self.pixel[0]),
            ("FIRST_X", self.pixel[1]),
            ("PHASE_HEIGHT", self.size[0]),
            ("PHASE_WIDTH", self.size[1]),
        ]
        .map(|(name, value)| (name, value as f64))
    }

    /// The product that makes its pixels, from the packed weights in a scratch buffer.
    fn product(&self, shapes: &Shapes, bound: Bound, scratch: usize) -> Product {
        let plane = Shapes::plane(shapes.x);
        let phase = shapes.geometry.stride != [1, 1];
        let types = Types { a: DType::F32, ..types(bound, [1, 0]) };
        let mut constants = shapes.constants(plane);
        constants.extend(self.constants());
        Product {
            groups: shapes.geometry.groups,
            rows: shapes.inputs(),
            cols: shapes.images * self.size[0] * self.size[1],
            inner: shapes.outputs() * self.taps[0] * self.taps[1],
            operands: [Binding::ScratchRead(scratch), Binding::Input(0)],
            output: Binding::Output(0),
            a_along_inner: true,
            cut: true,
            epilogue: Epilogue::default(),
            constants,
            variant: match shapes.pointwise() {
                true => Variant::pointwise(types, false, plane.is_multiple_of(4)),
                false => {
                    Variant::conv2d_input_grad(types, phase, !phase && plane.is_multiple_of(4))
                }
            },
        }
    }
}

/// Zeros for the whole output.
fn zero(bound: Bound) -> Step {
    let output = bound.outputs[0];
    let four = output.len().is_multiple_of(4);
    let elements = if four { output.len() / 4 } else { output.len() };
    Step {
        shader: shaders::zero(output.dtype, four),
        constants: vec![("LEN", elements as f64)],
        bindings: vec![Binding::Output(0)],
        elements,
    }
}

/// dw from x and dy.
pub(super) fn weight_grad(geometry: ConvGeometry, bound: Bound, caps: &DeviceCaps) -> Work {
    let [x, dy, w] = [&bound.inputs[0].shape, &bound.inputs[1].shape, &bound.outputs[0].shape];
    let shapes = Shapes::new(x, w, dy, geometry);
    if depthwise::suits(&shapes) {
        return depthwise::weight_grad(&shapes, bound, caps);
    }
    if winograd::suits(&shapes, bound, caps) {
        return winograd::weight_grad(&shapes);
    }
    let plane = Shapes::plane(shapes.y);
    let cols = shapes.inputs() * shapes.taps();
    let [planes, fours] = [plane, cols].map(|len| len.is_multiple_of(4));
    let product = Product {
        groups: geometry.groups,
        rows: shapes.outputs(),
        cols,
        inner: shapes.images * plane,
        operands: [Binding::Input(1), Binding::Input(0)],
        output: Binding::Output(0),
        a_along_inner: true,
        cut: true,
        epilogue: Epilogue::default(),
        constants: shapes.constants(plane),
        variant: match shapes.pointwise() && planes {
            true => Variant::pointwise_weight_grad(types(bound, [1, 0]), fours),
            false => Variant::conv2d_weight_grad(types(bound, [1, 0]), planes, fours),
        },
    };
    product.into()
}

/// Numbers of packed weights.
fn packed_len(product: &Product) -> usize {
    product.groups * product.rows * product.inner.next_multiple_of(4)
}

/// Writes the weights into a scratch buffer as the rows of a product, those of a phase for the gradient of
/// the image.
fn packing(
    product: &Product,
    shapes: &Shapes,
    bound: Bound,
    phase: Option<&Phase>,
    scratch: usize,
) -> Step {
    let [phase_y, phase_x] = phase.map_or([0, 0], |phase| phase.tap);
    let constants = [
        ("ROWS", product.rows),
        ("GROUPS", product.groups),
        ("INNER", product.inner),
        ("TURNED", usize::from(phase.is_some())),
        ("KERNEL_HEIGHT", shapes.kernel[0]),
        ("KERNEL_WIDTH", shapes.kernel[1]),
        ("STRIDE_Y", shapes.geometry.stride[0]),
        ("STRIDE_X", shapes.geometry.stride[1]),
        ("PHASE_Y", phase_y),
        ("PHASE_X", phase_x),
    ];
    Step {
        shader: shaders::conv2d_pack(bound.inputs[1].dtype),
        constants: constants.map(|(name, value)| (name, value as f64)).to_vec(),
        bindings: vec![Binding::Input(1), Binding::ScratchWrite(scratch)],
        elements: packed_len(product),
    }
}
