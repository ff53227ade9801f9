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

/// The way out and the engine end every product's shader. `fours`: whether columns lie side by side
/// in the result by fours.
macro_rules! product {
    ($name:literal, $tile:expr, $fours:expr, [$($parts:tt)*]) => {
        compose!($name, [], [
            ("shared/dense_shape", "shared/gelu", "shared/activation")
            $($parts)*
            ($tile =>
                Tile::Lanes64x32 => "shared/dense_lanes_64x32",
                Tile::Lanes32x32 => "shared/dense_lanes_32x32",
                Tile::Lanes16x32 => "shared/dense_lanes_16x32",
                Tile::Lanes8x32 => "shared/dense_lanes_8x32",
                Tile::Tiled64x64 => "shared/dense_tiled_64x64",
                Tile::Tiled32x32 => "shared/dense_tiled_32x32",
                Tile::Tiled16x64 => "shared/dense_tiled_16x64")
            (($tile.in_lanes(), $fours) =>
                (true, true) => "shared/dense_y4",
                _ => "shared/dense_y")
            ($tile.in_lanes() =>
                true => "shared/dense_lanes",
                false => "shared/dense_tiled")
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
pub(super) fn matmul(a: Layout, b: Layout, bias: bool, fours: bool, tile: Tile) -> &'static Shader {
    product!("matmul", tile, fours, [
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
pub(super) fn conv2d(bias: bool, fours: bool, tile: Tile) -> &'static Shader {
    product!("conv2d", tile, fours, [
        ("shared/dense_a_rows4", "shared/dense_geometry")
        (bias =>
            false => "shared/dense_bias_none",
            true => "shared/dense_bias_rows")
        ("shared/dense_y_planes", "conv2d")
    ])
}

/// The gradient of a convolution's image.
pub(super) fn conv2d_input_grad(fours: bool, tile: Tile) -> &'static Shader {
    product!(
        "conv2d_input_grad",
        tile,
        fours,
        [(
            "shared/dense_a_rows4",
            "shared/dense_geometry",
            "shared/dense_bias_none",
            "shared/dense_y_planes",
            "conv2d_input_grad"
        )]
    )
}

/// The gradient of a convolution's weights; `planes`: whether those of dy hold a multiple of four.
pub(super) fn conv2d_weight_grad(planes: bool, fours: bool, tile: Tile) -> &'static Shader {
    product!("conv2d_weight_grad", tile, fours, [
        (planes =>
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

/// The sum of a product's chunks and what follows it.
pub(super) fn reduce(bias: bool) -> &'static Shader {
    compose!("matmul_reduce", [], [
        ("shared/dispatch", "shared/gelu", "shared/activation")
        (bias =>
            false => "shared/dense_chunks",
            true => "shared/dense_chunks_bias")
        ("matmul_reduce")
    ])
}
