//! Which parts make up each dense shader: an operand part a side, a bias part, an output part, an engine.

use super::product::Tile;
use crate::gpu::kernel::Shader;

macro_rules! part {
    ($name:literal) => {
        include_str!(concat!("../../../shaders/", $name, ".wgsl"))
    };
}

/// A product's shader: `parts` say how operands are read and where results go; the way out and the
/// engine end it. `fours`: whether columns lie side by side in the result by fours.
fn product(name: &'static str, tile: Tile, fours: bool, parts: &[&'static str]) -> Shader {
    let mut all =
        vec![part!("shared/dense_shape"), part!("shared/gelu"), part!("shared/activation")];
    all.extend(parts);
    all.push(match tile.in_lanes() && fours {
        true => part!("shared/dense_y4"),
        false => part!("shared/dense_y"),
    });
    all.push(match tile.in_lanes() {
        true => part!("shared/dense_lanes"),
        false => part!("shared/dense_tiled"),
    });
    tile.consts()
        .into_iter()
        .fold(Shader::new(name, all), |shader, (name, value)| shader.with_const(name, value))
}

/// How an operand of a matrix product lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Whether it is stored transposed.
    pub transposed: bool,
    /// Whether its last stored dimension is a multiple of four.
    pub fours: bool,
}

/// A matrix product.
pub(super) fn matmul(a: Layout, b: Layout, bias: bool, fours: bool, tile: Tile) -> Shader {
    let a = match (a.transposed, a.fours) {
        (false, true) => part!("shared/dense_a_rows4"),
        (false, false) => part!("shared/dense_a_rows"),
        (true, true) => part!("shared/dense_a_cols4"),
        (true, false) => part!("shared/dense_a_cols"),
    };
    let b = match (b.transposed, b.fours) {
        (false, true) => part!("shared/dense_b_rows4"),
        (false, false) => part!("shared/dense_b_rows"),
        (true, true) => part!("shared/dense_b_cols4"),
        (true, false) => part!("shared/dense_b_cols"),
    };
    let bias = match bias {
        false => part!("shared/dense_bias_none"),
        true => part!("shared/dense_bias_cols"),
    };
    product("matmul", tile, fours, &[a, b, bias, part!("matmul")])
}

/// A convolution of an image.
pub(super) fn conv2d(bias: bool, fours: bool, tile: Tile) -> Shader {
    let bias = match bias {
        false => part!("shared/dense_bias_none"),
        true => part!("shared/dense_bias_rows"),
    };
    let [a, geometry] = [part!("shared/dense_a_rows4"), part!("shared/dense_geometry")];
    let parts = [a, geometry, bias, part!("shared/dense_y_planes"), part!("conv2d")];
    product("conv2d", tile, fours, &parts)
}

/// The gradient of a convolution's image.
pub(super) fn conv2d_input_grad(fours: bool, tile: Tile) -> Shader {
    let parts = [
        part!("shared/dense_a_rows4"),
        part!("shared/dense_geometry"),
        part!("shared/dense_bias_none"),
        part!("shared/dense_y_planes"),
        part!("conv2d_input_grad"),
    ];
    product("conv2d_input_grad", tile, fours, &parts)
}

/// The gradient of a convolution's weights; `planes`: whether those of dy hold a multiple of four.
pub(super) fn conv2d_weight_grad(planes: bool, fours: bool, tile: Tile) -> Shader {
    let a = match planes {
        true => part!("shared/dense_a_planes4"),
        false => part!("shared/dense_a_planes"),
    };
    let [geometry, bias] = [part!("shared/dense_geometry"), part!("shared/dense_bias_none")];
    let parts = [a, geometry, bias, part!("matmul"), part!("conv2d_weight_grad")];
    product("conv2d_weight_grad", tile, fours, &parts)
}

/// Weights as padded rows.
pub(super) fn conv2d_pack() -> Shader {
    Shader::new("conv2d_pack", vec![part!("shared/dispatch"), part!("conv2d_pack")])
}

/// The sum of a product's chunks and what follows it.
pub(super) fn reduce(bias: bool) -> Shader {
    let bias = match bias {
        false => part!("shared/dense_chunks"),
        true => part!("shared/dense_chunks_bias"),
    };
    let [dispatch, gelu] = [part!("shared/dispatch"), part!("shared/gelu")];
    let parts = vec![dispatch, gelu, part!("shared/activation"), bias, part!("matmul_reduce")];
    Shader::new("matmul_reduce", parts)
}
