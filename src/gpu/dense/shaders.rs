//! Which parts make up each dense shader: every combination is its own static [`Shader`].

use super::product::Tile;
use crate::gpu::kernel::Shader;

macro_rules! part {
    ($name:literal) => {
        include_str!(concat!("../../../shaders/", $name, ".wgsl"))
    };
}

/// A shader put together by matches: each `(value => pattern => part, ..)` adds the part of the
/// pattern that fits.
macro_rules! compose {
    ($name:literal, $done:tt, []) => {{
        static SHADER: Shader = Shader { name: $name, parts: &$done };
        &SHADER
    }};
    ($name:literal, $done:tt, [($($fixed:literal),+) $($rest:tt)*]) => {
        compose!(@push $name, $done, [$(part!($fixed)),+], [$($rest)*])
    };
    ($name:literal, $done:tt, [($value:expr => $($pattern:pat => $part:literal),+) $($rest:tt)*]) => {
        compose!(@match $name, $done, $value, [$($pattern => $part),+], [$($rest)*])
    };
    (@match $name:literal, $done:tt, $value:expr, [$($pattern:pat => $part:literal),+], $rest:tt) => {
        match $value {
            $($pattern => compose!(@push $name, $done, [part!($part)], $rest),)+
        }
    };
    (@push $name:literal, [$($done:expr),*], [$($part:expr),+], $rest:tt) => {
        compose!($name, [$($done,)* $($part),+], $rest)
    };
}

/// The engine's tile and the engine itself end every product's shader.
macro_rules! product {
    ($name:literal, $tile:expr, [$($parts:tt)*]) => {
        match $tile {
            Tile::Lanes64x32 => product!(@lanes $name, "shared/dense_lanes_64x32", [$($parts)*]),
            Tile::Lanes32x32 => product!(@lanes $name, "shared/dense_lanes_32x32", [$($parts)*]),
            Tile::Lanes16x32 => product!(@lanes $name, "shared/dense_lanes_16x32", [$($parts)*]),
            Tile::Lanes8x32 => product!(@lanes $name, "shared/dense_lanes_8x32", [$($parts)*]),
            Tile::Lanes16x16 => product!(@lanes $name, "shared/dense_lanes_16x16", [$($parts)*]),
            Tile::Tiled64x64 => product!(@tiled $name, "shared/dense_tiled_64x64", [$($parts)*]),
            Tile::Tiled32x32 => product!(@tiled $name, "shared/dense_tiled_32x32", [$($parts)*]),
            Tile::Tiled16x64 => product!(@tiled $name, "shared/dense_tiled_16x64", [$($parts)*]),
        }
    };
    (@lanes $name:literal, $tile:literal, $parts:tt) => {
        product!(@engine $name, [($tile, "shared/dense_lanes")], $parts)
    };
    (@tiled $name:literal, $tile:literal, $parts:tt) => {
        product!(@engine $name, [($tile, "shared/dense_tiled")], $parts)
    };
    (@engine $name:literal, [$engine:tt], [$($parts:tt)*]) => {
        compose!($name, [], [
            ("shared/dense_shape", "shared/gelu", "shared/activation")
            $($parts)*
            $engine
        ])
    };
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
pub(super) fn matmul(a: Layout, b: Layout, bias: bool, tile: Tile) -> &'static Shader {
    product!("matmul", tile, [
        ((a.transposed, a.fours) =>
            (false, true) => "shared/dense_a_rows4",
            (false, false) => "shared/dense_a_rows",
            (true, true) => "shared/dense_a_cols4",
            (true, false) => "shared/dense_a_cols")
        ((b.transposed, b.fours) =>
            (false, true) => "shared/dense_b_rows4",
            (false, false) => "shared/dense_b_rows",
            (true, true) => "shared/dense_b_cols4",
            (true, false) => "shared/dense_b_cols")
        (bias =>
            false => "shared/dense_bias_none",
            true => "shared/dense_bias_cols")
        ("matmul")
    ])
}

/// A convolution of an image.
pub(super) fn conv2d(bias: bool, tile: Tile) -> &'static Shader {
    product!("conv2d", tile, [
        ("shared/dense_a_rows4", "shared/dense_geometry")
        (bias =>
            false => "shared/dense_bias_none",
            true => "shared/dense_bias_rows")
        ("shared/dense_y_planes", "conv2d")
    ])
}

/// The gradient of a convolution's image.
pub(super) fn conv2d_input_grad(tile: Tile) -> &'static Shader {
    product!(
        "conv2d_input_grad",
        tile,
        [(
            "shared/dense_a_rows4",
            "shared/dense_geometry",
            "shared/dense_bias_none",
            "shared/dense_y_planes",
            "conv2d_input_grad"
        )]
    )
}

/// The gradient of a convolution's weights; `fours`: whether planes of dy hold a multiple of four.
pub(super) fn conv2d_weight_grad(fours: bool, tile: Tile) -> &'static Shader {
    product!("conv2d_weight_grad", tile, [
        (fours =>
            true => "shared/dense_a_planes4",
            false => "shared/dense_a_planes")
        (
            "shared/dense_geometry",
            "shared/dense_bias_none",
            "matmul",
            "conv2d_weight_grad"
        )
    ])
}

/// Weights as padded rows.
pub(super) fn conv2d_pack() -> &'static Shader {
    compose!("conv2d_pack", [], [("shared/dispatch", "conv2d_pack")])
}

/// The sum of a split product's chunks.
pub(super) fn reduce() -> &'static Shader {
    compose!("matmul_reduce", [], [("shared/dispatch", "matmul_reduce")])
}
