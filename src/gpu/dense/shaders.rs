//! Which parts make up each dense shader: an operand part a side, a bias part, an output part, an engine.

use super::tile::{Engine, Tile};
use crate::batch::DType;
use crate::gpu::kernel::{Bound, DeviceCaps, Shader, Store};

macro_rules! part {
    ($name:literal) => {
        include_str!(concat!("../../../shaders/", $name, ".wgsl"))
    };
}

/// What the elements of the bindings are stored as: f32 or f16.
#[derive(Clone, Copy, Debug)]
pub(super) struct Types {
    pub a: DType,
    pub b: DType,
    pub y: DType,
    pub bias: DType,
}

impl Default for Types {
    fn default() -> Self {
        Self { a: DType::F32, b: DType::F32, y: DType::F32, bias: DType::F32 }
    }
}

/// The shader of a product, up to its tile.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    name: &'static str,
    /// How operands are read.
    parts: Vec<&'static str>,
    /// Where results go.
    place: &'static str,
    /// What a convolution's parts share; nothing for matrix products.
    geometry: &'static str,
    /// The part that adds a bias, where one is bound.
    bias: &'static str,
    types: Types,
    /// Whether a and b are read by fours as they are stored, and whether columns lie side by side in
    /// the result by fours.
    fours: [bool; 3],
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
    /// A matrix product; `fours`: whether the columns of the result are a multiple of four.
    pub fn matmul(a: Layout, b: Layout, types: Types, fours: bool) -> Self {
        let a_part = match (a.transposed, a.fours) {
            (false, true) => part!("shared/dense_a_rows4"),
            (false, false) => part!("shared/dense_a_rows"),
            (true, true) => part!("shared/dense_a_cols4"),
            (true, false) => part!("shared/dense_a_cols"),
        };
        let b_part = match (b.transposed, b.fours) {
            (false, true) => part!("shared/dense_b_rows4"),
            (false, false) => part!("shared/dense_b_rows"),
            (true, true) => part!("shared/dense_b_cols4"),
            (true, false) => part!("shared/dense_b_cols"),
        };
        Self {
            name: "matmul",
            parts: vec![a_part, b_part],
            place: part!("matmul"),
            geometry: "",
            bias: part!("shared/dense_bias_cols"),
            types,
            fours: [a.fours, b.fours, fours],
        }
    }

    /// A convolution of an image; `fours`: whether the planes of the result hold a multiple of four.
    pub fn conv2d(types: Types, fours: bool) -> Self {
        Self {
            name: "conv2d",
            parts: vec![part!("shared/dense_a_rows4"), part!("conv2d")],
            place: part!("shared/dense_y_planes"),
            geometry: part!("shared/dense_geometry"),
            bias: part!("shared/dense_bias_rows"),
            types,
            fours: [true, false, fours],
        }
    }

    /// The gradient of a convolution's image, of all its pixels or of a phase; `fours`: whether columns
    /// lie by fours in it.
    pub fn conv2d_input_grad(types: Types, phase: bool, fours: bool) -> Self {
        Self {
            name: "conv2d_input_grad",
            parts: vec![part!("shared/dense_a_rows4"), part!("conv2d_input_grad")],
            place: match phase {
                false => part!("shared/dense_y_planes"),
                true => part!("shared/dense_y_phase"),
            },
            geometry: part!("shared/dense_geometry"),
            bias: part!("shared/dense_bias_none"),
            types,
            fours: [true, false, fours],
        }
    }

    /// The gradient of a convolution's weights; `planes`: whether those of dy hold a multiple of four.
    pub fn conv2d_weight_grad(types: Types, planes: bool, fours: bool) -> Self {
        let a = match planes {
            true => part!("shared/dense_a_planes4"),
            false => part!("shared/dense_a_planes"),
        };
        Self {
            name: "conv2d_weight_grad",
            parts: vec![a, part!("conv2d_weight_grad")],
            place: part!("matmul"),
            geometry: part!("shared/dense_geometry"),
            bias: part!("shared/dense_bias_none"),
            types,
            fours: [planes, false, fours],
        }
    }

    /// A convolution with a kernel of one pixel that moves pixel by pixel, or the gradient of its image: a
    /// product of weights with planes. `turned`: the weights are stored transposed; `fours`: whether planes
    /// hold a multiple of four.
    pub fn pointwise(types: Types, turned: bool, fours: bool) -> Self {
        let a = match turned {
            false => part!("shared/dense_a_rows4"),
            true => part!("shared/dense_a_cols4"),
        };
        let b = match fours {
            true => part!("shared/dense_b_planes4"),
            false => part!("shared/dense_b_planes"),
        };
        Self {
            name: "pointwise",
            parts: vec![a, b],
            place: part!("shared/dense_y_planes"),
            geometry: part!("shared/dense_geometry"),
            bias: part!("shared/dense_bias_rows"),
            types,
            fours: [true, fours, fours],
        }
    }

    /// The gradient of the weights of such a convolution, where planes hold a multiple of four; `fours`:
    /// whether columns lie by fours in it.
    pub fn pointwise_weight_grad(types: Types, fours: bool) -> Self {
        Self {
            name: "pointwise_weight_grad",
            parts: vec![part!("shared/dense_a_planes4"), part!("shared/dense_b_pixels4")],
            place: part!("matmul"),
            geometry: part!("shared/dense_geometry"),
            bias: part!("shared/dense_bias_none"),
            types,
            fours: [true, true, fours],
        }
    }

    /// Whether an operand is f16.
    pub fn half(&self) -> bool {
        [self.types.a, self.types.b].contains(&DType::F16)
    }

    /// The whole shader for a tile, with a bias or without; `chunks`: the results are chunks of sums.
    pub fn shader(&self, tile: Tile, bias: bool, chunks: bool, caps: &DeviceCaps) -> Shader {
        let mut all =
            vec![part!("shared/dense_shape"), part!("shared/gelu"), part!("shared/activation")];
        all.push(self.geometry);
        all.extend(&self.parts);
        all.push(if chunks { part!("matmul") } else { self.place });
        all.push(if bias { self.bias } else { part!("shared/dense_bias_none") });
        // Chunks are f32, one row after another.
        let [a, b, y] = self.fours;
        all.push(if y { part!("shared/dense_y4") } else { part!("shared/dense_y") });
        all.push(match tile.engine {
            Engine::Lanes => part!("shared/dense_lanes"),
            Engine::Tiled => part!("shared/dense_tiled"),
            Engine::Coop => part!("shared/dense_coop"),
        });
        let y_type = if chunks { DType::F32 } else { self.types.y };
        let mut shader = Shader::new(self.name, all)
            .with_store("AStore", Store::of(self.types.a, a))
            .with_store("BStore", Store::of(self.types.b, b))
            .with_store("YStore", Store::of(y_type, y));
        if bias {
            shader = shader.with_store("BiasStore", Store::of(self.types.bias, false));
        }
        if tile.engine == Engine::Coop {
            shader = shader.with_extension("wgpu_cooperative_matrix");
        }
        tile.consts(caps)
            .into_iter()
            .fold(shader, |shader, (name, value)| shader.with_const(name, value))
    }

    /// The sum of a product's chunks and what follows it.
    pub fn reduce(&self, bias: bool) -> Shader {
        let parts = vec![
            part!("shared/dispatch"),
            part!("shared/gelu"),
            part!("shared/activation"),
            self.geometry,
            self.place,
            if bias { self.bias } else { part!("shared/dense_bias_none") },
            part!("shared/dense_y"),
            part!("matmul_reduce"),
        ];
        let shader = Shader::new("matmul_reduce", parts)
            .with_store("YStore", Store::of(self.types.y, false));
        if bias {
            shader.with_store("BiasStore", Store::of(self.types.bias, false))
        } else {
            shader
        }
    }
}

/// Weights of this type as padded rows.
pub(super) fn conv2d_pack(weights: DType) -> Shader {
    Shader::new("conv2d_pack", vec![part!("shared/dispatch"), part!("conv2d_pack")])
        .with_store("WStore", Store::of(weights, false))
}

/// Zeros of this type, four at a time or one.
pub(super) fn zero(dtype: DType, four: bool) -> Shader {
    Shader::new("zero", vec![part!("shared/dispatch"), part!("zero")])
        .with_store("YStore", Store::of(dtype, four))
}

/// A convolution whose channels are groups of their own, or a gradient of one: `shaders/NAME.wgsl`, after its
/// parts; its inputs are XStore and WStore, its output is YStore.
macro_rules! depthwise {
    ($bound:expr, $name:literal $(, $part:expr)*) => {
        Shader::new(
            $name,
            vec![
                part!("shared/dispatch"),
                part!("shared/dense_geometry"),
                $($part,)*
                part!($name),
            ],
        )
        .with_store("XStore", Store::of($bound.inputs[0].dtype, false))
        .with_store("WStore", Store::of($bound.inputs[1].dtype, false))
        .with_store("YStore", Store::of($bound.outputs[0].dtype, false))
    };
}

/// Such a convolution.
pub(super) fn depthwise(bound: Bound, bias: bool) -> Shader {
    let bias = match bias {
        true => part!("shared/dense_bias_rows"),
        false => part!("shared/dense_bias_none"),
    };
    let bias_type = bound.inputs.get(2).map_or(DType::F32, |bias| bias.dtype);
    let [gelu, activation] = [part!("shared/gelu"), part!("shared/activation")];
    depthwise!(bound, "conv2d_depthwise", gelu, activation, bias)
        .with_store("BiasStore", Store::of(bias_type, false))
}

/// The gradient of its image.
pub(super) fn depthwise_input_grad(bound: Bound) -> Shader {
    depthwise!(bound, "conv2d_depthwise_input_grad")
}

/// The gradient of its weights, in chunks.
pub(super) fn depthwise_weight_grad(bound: Bound, taps: usize) -> Shader {
    depthwise!(bound, "conv2d_depthwise_weight_grad").with_const("TAPS", taps as u32)
}

/// The sum of chunks of rows that lie one after another.
pub(super) fn sum_of_rows(dtype: DType) -> Shader {
    let parts = vec![
        part!("shared/dispatch"),
        part!("shared/gelu"),
        part!("shared/activation"),
        part!("matmul"),
        part!("shared/dense_bias_none"),
        part!("shared/dense_y"),
        part!("matmul_reduce"),
    ];
    Shader::new("matmul_reduce", parts).with_store("YStore", Store::of(dtype, false))
}

/// A step of a convolution by Winograd's transforms: `shaders/NAME.wgsl`, after its parts.
macro_rules! winograd {
    ($name:literal $(, $part:literal)*) => {
        Shader::new(
            $name,
            vec![
                part!("shared/dispatch"),
                part!("shared/winograd"),
                $(part!($part),)*
                part!($name),
            ],
        )
    };
}

/// Pixels, transformed.
pub(super) fn winograd_pixels() -> Shader {
    winograd!("winograd_pixels", "shared/winograd_tiles")
}

/// Weights, transformed.
pub(super) fn winograd_weights() -> Shader {
    winograd!("winograd_weights")
}

/// Results from transformed ones, with a bias or without.
pub(super) fn winograd_results(bias: bool) -> Shader {
    let shader = match bias {
        true => winograd!(
            "winograd_results",
            "shared/winograd_tiles",
            "shared/gelu",
            "shared/activation",
            "shared/dense_bias_rows"
        ),
        false => winograd!(
            "winograd_results",
            "shared/winograd_tiles",
            "shared/gelu",
            "shared/activation",
            "shared/dense_bias_none"
        ),
    };
    shader.with_store("BiasStore", Store::F32)
}

/// The gradient of results, transformed.
pub(super) fn winograd_result_grads() -> Shader {
    winograd!("winograd_result_grads", "shared/winograd_tiles")
}

/// The gradient of weights from that of transformed ones.
pub(super) fn winograd_weight_grad() -> Shader {
    winograd!("winograd_weight_grad")
}
