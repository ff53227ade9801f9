//! Which parts make up each dense shader: an operand part a side, a bias part, an output part, an engine.

use super::tile::{Engine, Tile};
use crate::gpu::kernel::Shader;

macro_rules! part {
    ($name:literal) => {
        include_str!(concat!("../../../shaders/", $name, ".wgsl"))
    };
}

/// The shader of a product, up to its tile.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    name: &'static str,
    /// How operands are read and where results go.
    parts: Vec<&'static str>,
    /// The part that adds a bias, where one is bound.
    bias: &'static str,
    /// Whether columns lie side by side in the result by fours.
    fours: bool,
}

/// How an operand of a matrix product lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Whether it is stored transposed.
    pub transposed: bool,
    /// Whether its last stored dimension is a multiple of four.
    pub fours: bool,
}

impl Variant {
    /// A matrix product.
    pub fn matmul(a: Layout, b: Layout, fours: bool) -> Self {
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
        let bias = part!("shared/dense_bias_cols");
        Self { name: "matmul", parts: vec![a, b, part!("matmul")], bias, fours }
    }

    /// A convolution of an image.
    pub fn conv2d(fours: bool) -> Self {
        let parts = vec![
            part!("shared/dense_a_rows4"),
            part!("shared/dense_geometry"),
            part!("shared/dense_y_planes"),
            part!("conv2d"),
        ];
        Self { name: "conv2d", parts, bias: part!("shared/dense_bias_rows"), fours }
    }

    /// The gradient of a convolution's image.
    pub fn conv2d_input_grad(fours: bool) -> Self {
        let parts = vec![
            part!("shared/dense_a_rows4"),
            part!("shared/dense_geometry"),
            part!("shared/dense_y_planes"),
            part!("conv2d_input_grad"),
        ];
        Self { name: "conv2d_input_grad", parts, bias: part!("shared/dense_bias_none"), fours }
    }

    /// The gradient of a convolution's weights; `planes`: whether those of dy hold a multiple of four.
    pub fn conv2d_weight_grad(planes: bool, fours: bool) -> Self {
        let a = match planes {
            true => part!("shared/dense_a_planes4"),
            false => part!("shared/dense_a_planes"),
        };
        let parts =
            vec![a, part!("shared/dense_geometry"), part!("matmul"), part!("conv2d_weight_grad")];
        Self { name: "conv2d_weight_grad", parts, bias: part!("shared/dense_bias_none"), fours }
    }

    /// The whole shader for a tile, with a bias or without.
    pub fn shader(&self, tile: Tile, bias: bool) -> Shader {
        let mut all =
            vec![part!("shared/dense_shape"), part!("shared/gelu"), part!("shared/activation")];
        all.extend(&self.parts);
        all.push(if bias { self.bias } else { part!("shared/dense_bias_none") });
        all.push(match tile.engine == Engine::Lanes && self.fours {
            true => part!("shared/dense_y4"),
            false => part!("shared/dense_y"),
        });
        all.push(match tile.engine {
            Engine::Lanes => part!("shared/dense_lanes"),
            Engine::Tiled => part!("shared/dense_tiled"),
        });
        tile.consts().into_iter().fold(Shader::new(self.name, all), |shader, (name, value)| {
            shader.with_const(name, value)
        })
    }
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
