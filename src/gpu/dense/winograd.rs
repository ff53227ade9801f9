//! Convolutions of 3 by 3 by tiles of 4 by 4 results (Lavin and Gray, 2016): 36 matrix products between
//! transforms, with a quarter of the multiplications. `shared/winograd.wgsl` has the transforms.
//!
//! Their roundings are larger than those of the definition, about 1e-5 of the largest result in f32.
//! Taken by shape and kind of device alone, so that the same bits come out every time.

use super::conv::Shapes;
use super::product::{Epilogue, Product, Step, Work};
use super::shaders::{self, Layout, Types, Variant};
use super::tile::Engine;
use crate::batch::DType;
use crate::gpu::kernel::{Binding, Bound, DeviceCaps};
use crate::graph::op::ConvGeometry;

/// Products of the transformed tiles of pixels and weights.
const PRODUCTS: usize = 36;
/// Along both sides of a tile.
const SIDE: usize = 4;
/// With fewer channels on either side the transforms cost more than the products save.
const CHANNELS_MIN: usize = 32;
/// With fewer tiles the transforms of the weights do.
const TILES_MIN: usize = 64;
/// What every device can bind as one buffer, and none of the transformed tensors may exceed.
const SCRATCH_BYTES_MAX: usize = 128 << 20;

/// Whether a convolution and its gradients are computed so.
pub(super) fn suits(shapes: &Shapes, bound: Bound, caps: &DeviceCaps) -> bool {
    let Shapes { x: [inputs, _, width], y: [outputs, ..], kernel, geometry, .. } = *shapes;
    let plain = ConvGeometry { stride: [1, 1], padding: [1, 1], groups: 1 };
    let wide = |channels: usize| channels >= CHANNELS_MIN && channels.is_multiple_of(SIDE);
    let f32s = |tensor: &&crate::graph::Tensor| tensor.dtype == DType::F32;
    let tiles = Tiles::new(shapes);
    let largest = PRODUCTS * inputs.max(outputs) * tiles.cols() * size_of::<f32>();
    // Where else it pays is not known: it was measured on a software adapter only.
    Engine::of(caps, false) == Engine::Lanes
        && (kernel, geometry) == ([3, 3], plain)
        && wide(inputs)
        && wide(outputs)
        && width.is_multiple_of(SIDE)
        && tiles.all >= TILES_MIN
        && largest <= SCRATCH_BYTES_MAX
        && bound.inputs.iter().chain(bound.outputs).all(f32s)
}

/// The tiles of all images.
#[derive(Clone, Copy)]
struct Tiles {
    down: usize,
    across: usize,
    all: usize,
}

impl Tiles {
    fn new(shapes: &Shapes) -> Self {
        let [_, height, width] = shapes.y;
        let [down, across] = [height.div_ceil(SIDE), width.div_ceil(SIDE)];
        Self { down, across, all: shapes.images * down * across }
    }

    /// Their number as columns of a product: whole fours.
    fn cols(self) -> usize {
        self.all.next_multiple_of(4)
    }

    /// A step with an invocation for four tiles of each of so many channels.
    fn step(self, shader: crate::gpu::kernel::Shader, channels: usize, shapes: &Shapes) -> Step {
        let constants = [
            ("TILES_DOWN", self.down),
            ("TILES_ACROSS", self.across),
            ("TILES", self.all),
            ("QUADS", self.cols() / 4),
            ("CHANNELS", channels),
            ("HEIGHT", shapes.y[1]),
            ("WIDTH", shapes.y[2]),
        ];
        Step {
            shader,
            constants: constants.map(|(name, value)| (name, value as f64)).to_vec(),
            bindings: vec![],
            elements: channels * self.cols() / 4,
        }
    }
}

impl Step {
    fn binding(self, bindings: &[Binding]) -> Self {
        Self { bindings: bindings.to_vec(), ..self }
    }
}

/// The 36 products `[rows, inner] · [inner, cols]` of scratch buffers 0 and 1 into 2; `transposed`: the
/// second is `[cols, inner]`.
fn product([rows, cols, inner]: [usize; 3], operands: [usize; 2], transposed: bool) -> Product {
    let layout = |transposed| Layout { transposed, fours: true };
    Product {
        groups: PRODUCTS,
        rows,
        cols,
        inner,
        operands: operands.map(Binding::ScratchRead),
        output: Binding::ScratchWrite(2),
        a_along_inner: true,
        cut: true,
        epilogue: Epilogue::default(),
        constants: vec![],
        variant: Variant::matmul(layout(false), layout(transposed), Types::default(), true),
    }
}

/// y from x and w, or, `turned`, dx from dy and w: the same with channels changed about and the weights
/// turned by half a circle.
pub(super) fn convolution(shapes: &Shapes, epilogue: Epilogue, turned: bool) -> Work {
    let tiles = Tiles::new(shapes);
    let [inputs, outputs] = match turned {
        false => [shapes.x[0], shapes.y[0]],
        true => [shapes.y[0], shapes.x[0]],
    };
    let weights = Step {
        shader: shaders::winograd_weights(),
        constants: vec![
            ("ROWS", outputs as f64),
            ("INNER", inputs as f64),
            ("TURNED", f64::from(u8::from(turned))),
        ],
        bindings: vec![Binding::Input(1), Binding::ScratchWrite(0)],
        elements: outputs * inputs / 4,
    };
    let pixels = tiles.step(shaders::winograd_pixels(), inputs, shapes);
    let mut results =
        tiles.step(shaders::winograd_results(epilogue.bias.is_some()), outputs, shapes);
    results.constants.push(epilogue.activation());
    let mut ends = vec![Binding::ScratchRead(2), Binding::Output(0)];
    ends.extend(epilogue.bias);
    Work {
        before: vec![weights, pixels.binding(&[Binding::Input(0), Binding::ScratchWrite(1)])],
        products: vec![product([outputs, tiles.cols(), inputs], [0, 1], false)],
        after: vec![results.binding(&ends)],
        scratch: [outputs * inputs, inputs * tiles.cols(), outputs * tiles.cols()]
            .map(|len| PRODUCTS * len)
            .to_vec(),
    }
}

/// dw from x and dy.
pub(super) fn weight_grad(shapes: &Shapes) -> Work {
    let tiles = Tiles::new(shapes);
    let [inputs, outputs] = [shapes.x[0], shapes.y[0]];
    let pixels = tiles.step(shaders::winograd_pixels(), inputs, shapes);
    let grads = tiles.step(shaders::winograd_result_grads(), outputs, shapes);
    let fours = outputs * inputs / 4;
    let weights = Step {
        shader: shaders::winograd_weight_grad(),
        constants: vec![("FOURS", fours as f64)],
        bindings: vec![Binding::ScratchRead(2), Binding::Output(0)],
        elements: fours,
    };
    Work {
        before: vec![
            pixels.binding(&[Binding::Input(0), Binding::ScratchWrite(0)]),
            grads.binding(&[Binding::Input(1), Binding::ScratchWrite(1)]),
        ],
        products: vec![product([outputs, inputs, tiles.cols()], [1, 0], true)],
        after: vec![weights],
        scratch: [inputs * tiles.cols(), outputs * tiles.cols(), outputs * inputs]
            .map(|len| PRODUCTS * len)
            .to_vec(),
    }
}
