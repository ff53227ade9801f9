//! Convolutions and their gradients as products, one product for each group of channels.

use super::product::{Epilogue, Packing, Product, Work};
use super::shaders::{self, Types, Variant};
use super::types;
use crate::batch::DType;
use crate::gpu::kernel::{Binding, Bound};
use crate::graph::op::{Activation, ConvGeometry};

/// The shapes of a convolution.
struct Shapes {
    images: usize,
    /// Of x: channels, height, width.
    x: [usize; 3],
    /// Of y: channels, height, width.
    y: [usize; 3],
    kernel: [usize; 2],
    geometry: ConvGeometry,
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
    fn inputs(&self) -> usize {
        self.x[0] / self.geometry.groups
    }

    /// Channels of y in a group.
    fn outputs(&self) -> usize {
        self.y[0] / self.geometry.groups
    }

    /// Elements of a kernel's window.
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// What `shared/dense_geometry.wgsl` takes, and the elements of the plane that a part counts by.
    fn constants(&self, plane: usize) -> Vec<(&'static str, f64)> {
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
) -> Work {
    let [x, w, y] = [&bound.inputs[0].shape, &bound.inputs[1].shape, &bound.outputs[0].shape];
    let shapes = Shapes::new(x, w, y, geometry);
    let inner = shapes.inputs() * shapes.taps();
    let packed = !inner.is_multiple_of(4);
    let weights = if packed { Binding::ScratchRead(0) } else { Binding::Input(1) };
    let types = types(bound, [1, 0]);
    let types = if packed { Types { a: DType::F32, ..types } } else { types };
    let plane = Shapes::plane(shapes.y);
    let product = Product {
        groups: geometry.groups,
        rows: shapes.outputs(),
        cols: shapes.images * plane,
        inner,
        operands: [weights, Binding::Input(0)],
        a_along_inner: true,
        cut: true,
        epilogue: Epilogue { bias: bias.then_some(Binding::Input(2)), activation },
        constants: shapes.constants(plane),
        variant: Variant::conv2d(types, plane.is_multiple_of(4)),
    };
    Work { packing: packed.then(|| packing(&product, &shapes, bound, false)), product }
}

/// dx from dy and w.
pub(super) fn input_grad(geometry: ConvGeometry, bound: Bound) -> Work {
    let [dy, w, x] = [&bound.inputs[0].shape, &bound.inputs[1].shape, &bound.outputs[0].shape];
    let shapes = Shapes::new(x, w, dy, geometry);
    let plane = Shapes::plane(shapes.x);
    let types = Types { a: DType::F32, ..types(bound, [1, 0]) };
    let product = Product {
        groups: geometry.groups,
        rows: shapes.inputs(),
        cols: shapes.images * plane,
        inner: shapes.outputs() * shapes.taps(),
        operands: [Binding::ScratchRead(0), Binding::Input(0)],
        a_along_inner: true,
        cut: true,
        epilogue: Epilogue::default(),
        constants: shapes.constants(plane),
        variant: Variant::conv2d_input_grad(types, plane.is_multiple_of(4)),
    };
    Work { packing: Some(packing(&product, &shapes, bound, true)), product }
}

/// dw from x and dy.
pub(super) fn weight_grad(geometry: ConvGeometry, bound: Bound) -> Work {
    let [x, dy, w] = [&bound.inputs[0].shape, &bound.inputs[1].shape, &bound.outputs[0].shape];
    let shapes = Shapes::new(x, w, dy, geometry);
    let plane = Shapes::plane(shapes.y);
    let cols = shapes.inputs() * shapes.taps();
    let [planes, fours] = [plane, cols].map(|len| len.is_multiple_of(4));
    let product = Product {
        groups: geometry.groups,
        rows: shapes.outputs(),
        cols,
        inner: shapes.images * plane,
        operands: [Binding::Input(1), Binding::Input(0)],
        a_along_inner: true,
        cut: true,
        epilogue: Epilogue::default(),
        constants: shapes.constants(plane),
        variant: Variant::conv2d_weight_grad(types(bound, [1, 0]), planes, fours),
    };
    Work { packing: None, product }
}

/// The weights as rows of a product, in scratch memory; `turned`: for the gradient of the image.
fn packing(product: &Product, shapes: &Shapes, bound: Bound, turned: bool) -> Packing {
    let constants = vec![
        ("ROWS", product.rows as f64),
        ("GROUPS", product.groups as f64),
        ("INNER", product.inner as f64),
        ("TAPS", shapes.taps() as f64),
        ("TURNED", f64::from(u8::from(turned))),
    ];
    let elements = product.groups * product.rows * product.inner.next_multiple_of(4);
    Packing { shader: shaders::conv2d_pack(bound.inputs[1].dtype), constants, elements }
}
