//! Vision transformers (Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021), as timm builds them: its
//! names, shapes and initial distributions, so that its weights load.

use super::build::{self, Conv2d, Start, within};
use super::sequential::{sample_input, target_width};
use super::{Mode, Module};
use crate::batch::SampleSpec;
use crate::error::Result;
use crate::graph::op::{Attending, ConvGeometry, Op};
use crate::graph::{Graph, Init, TensorId};

/// timm's `trunc_normal_` cuts at ±2, a hundred deviations away: that is a normal distribution.
const STD: f32 = 0.02;
const CLASS_TOKEN_STD: f32 = 1e-6;
const EPS: f64 = 1e-6;
/// Width of a block's hidden layer, in widths of the model.
const MLP_RATIO: usize = 4;

/// How large a vision transformer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Blocks.
    pub depth: usize,
    /// Features of a token.
    pub width: usize,
    /// Heads of each attention; they divide the width.
    pub heads: usize,
}

impl Size {
    /// `vit_tiny` and DeiT-tiny (Touvron et al., 2021).
    pub const TINY: Self = Self { depth: 12, width: 192, heads: 3 };
}

/// `timm.models.VisionTransformer` with a class token: patches of the image as tokens, blocks of attention and
/// a hidden layer, each after a layer norm and added to what it read, and a linear layer `head` over the class
/// token.
///
/// Patches are 16 pixels a side for images of 128 and more, 4 for those of at most 64, and between them 8, or 4
/// where 8 does not divide the sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisionTransformer {
    size: Size,
    out: usize,
}

impl VisionTransformer {
    /// The network for samples of `spec`, with an output a class.
    ///
    /// # Errors
    /// When the samples are no images `[channels, height, width]` that patches divide, or the heads do not
    /// divide the width.
    pub fn new(size: Size, spec: &SampleSpec) -> Result<Self> {
        let model = Self { size, out: target_width(spec) };
        let mut graph = Graph::new();
        let x = sample_input(&mut graph, spec, 1);
        model.build(&mut graph, x, Mode::Train)?;
        Ok(model)
    }

    /// Turns images into tokens `[n, tokens, width]`: the class token, then the patches row by row, each with
    /// what is learned about its position.
    fn embed(&self, graph: &mut Graph, x: TensorId) -> Result<TensorId> {
        let width = self.size.width;
        let side = patch_side(graph, x)?;
        let [n, _, height, image_width] = build::expect_image(graph, x, "a vision transformer")?;
        let patches = (height / side) * (image_width / side);
        let class = graph.param("cls_token", &[1, 1, width], normal(CLASS_TOKEN_STD));
        let positions = graph.param("pos_embed", &[1, patches + 1, width], normal(STD));
        let conv = Conv2d {
            out: width,
            kernel: [side; 2],
            geometry: ConvGeometry { stride: [side; 2], padding: [0; 2], groups: 1 },
            bias: true,
            start: Start::FanIn,
        };
        let y = within(graph, "patch_embed.proj", |graph| build::conv2d(graph, x, &conv))?;
        let y = graph.reshape(y, &[n, width, patches])?;
        let y = graph.push_one(Op::Transpose, &[y])?;
        let class = graph.reshape(class, &[1, width])?;
        let class = graph.push_one(Op::Broadcast { axis: 0, len: n, factor: 1.0 }, &[class])?;
        let y = graph.push_one(Op::Concat { axis: 1 }, &[class, y])?;
        let y = build::add_positions(graph, y, n, positions)?;
        graph.reshape(y, &[n, patches + 1, width])
    }

    /// A block over tokens `[n, tokens, width]`.
    fn block(&self, graph: &mut Graph, x: TensorId) -> Result<TensorId> {
        let y = norm(graph, "norm1", x)?;
        let y = within(graph, "attn", |graph| self.attention(graph, y))?;
        let x = graph.push_one(Op::Add, &[x, y])?;
        let y = norm(graph, "norm2", x)?;
        let y = within(graph, "mlp", |graph| {
            let y = linear(graph, "fc1", y, MLP_RATIO * self.size.width)?;
            let y = within(graph, "act", |graph| graph.push_one(Op::Gelu, &[y]))?;
            linear(graph, "fc2", y, self.size.width)
        })?;
        graph.push_one(Op::Add, &[x, y])
    }

    fn attention(&self, graph: &mut Graph, x: TensorId) -> Result<TensorId> {
        let Size { width, heads, .. } = self.size;
        let qkv = linear(graph, "qkv", x, 3 * width)?;
        let [y, _] = graph.push(Op::Attention(Attending::new(heads, false)), &[qkv])?[..] else {
            unreachable!("attention has two outputs")
        };
        linear(graph, "proj", y, width)
    }
}

impl Module for VisionTransformer {
    fn build(&self, graph: &mut Graph, x: TensorId, _: Mode) -> Result<TensorId> {
        let mut y = self.embed(graph, x)?;
        for index in 0..self.size.depth {
            y = within(graph, &format!("blocks.{index}"), |graph| self.block(graph, y))?;
        }
        // The norm works token by token, so that of the class token alone is the same.
        let n = graph.shape(y)[0];
        let class = graph.push_one(Op::Slice { axis: 1, start: 0, len: 1 }, &[y])?;
        let class = graph.reshape(class, &[n, self.size.width])?;
        let class = norm(graph, "norm", class)?;
        linear(graph, "head", class, self.out)
    }
}

fn normal(std: f32) -> Init {
    Init::Normal { std }
}

/// The side of a patch for images of this size.
fn patch_side(graph: &Graph, x: TensorId) -> Result<usize> {
    let [_, _, height, width] = build::expect_image(graph, x, "a vision transformer")?;
    let sides: &[usize] = match height.max(width) {
        128.. => &[16],
        65.. => &[8, 4],
        _ => &[4],
    };
    let divides = |side: &&usize| {
        height.min(width) > 0 && height.is_multiple_of(**side) && width.is_multiple_of(**side)
    };
    sides.iter().find(divides).copied().ok_or_else(|| {
        let least = sides[sides.len() - 1];
        let message = format!(
            "found images of {height} × {width} pixels, expected sides that patches of {least} pixels divide"
        );
        build::fault(graph, message).hint("images of another size, or --model resnet18")
    })
}

fn norm(graph: &mut Graph, name: &str, x: TensorId) -> Result<TensorId> {
    within(graph, name, |graph| build::layer_norm(graph, x, EPS))
}

/// A linear layer over the last dimension.
fn linear(graph: &mut Graph, name: &str, x: TensorId, out: usize) -> Result<TensorId> {
    let start = Start::Normal { std: f64::from(STD) };
    let mut shape = graph.shape(x).to_vec();
    let features = shape.pop().unwrap_or(1);
    let rows = shape.iter().product();
    shape.push(out);
    within(graph, name, |graph| {
        let x = if shape.len() == 2 { x } else { graph.reshape(x, &[rows, features])? };
        let y = build::linear(graph, x, out, true, start)?;
        if shape.len() == 2 { Ok(y) } else { graph.reshape(y, &shape) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, TargetSpec};
    use crate::nn::describe::{ModelDescription, describe};

    fn described(size: Size, sides: [usize; 2], classes: usize) -> Result<ModelDescription> {
        let spec = SampleSpec {
            input_shape: vec![3, sides[0], sides[1]],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes },
        };
        describe(&VisionTransformer::new(size, &spec)?, &spec, 2)
    }

    #[test]
    fn names_shapes_and_order_are_timms() {
        let size = Size { depth: 2, width: 12, heads: 3 };
        let description = described(size, [32, 32], 10).expect("images fit");
        let found = description.tensor_lines();
        let block = |i: usize| {
            [
                "norm1.weight [12]",
                "norm1.bias [12]",
                "attn.qkv.weight [36, 12]",
                "attn.qkv.bias [36]",
                "attn.proj.weight [12, 12]",
                "attn.proj.bias [12]",
                "norm2.weight [12]",
                "norm2.bias [12]",
                "mlp.fc1.weight [48, 12]",
                "mlp.fc1.bias [48]",
                "mlp.fc2.weight [12, 48]",
                "mlp.fc2.bias [12]",
            ]
            .map(|name| format!("blocks.{i}.{name}"))
        };
        let first = [
            "cls_token [1, 1, 12]",
            "pos_embed [1, 65, 12]",
            "patch_embed.proj.weight [12, 3, 4, 4]",
            "patch_embed.proj.bias [12]",
        ];
        let last = ["norm.weight [12]", "norm.bias [12]", "head.weight [10, 12]", "head.bias [10]"];
        let expected: Vec<String> = first
            .map(String::from)
            .into_iter()
            .chain(block(0))
            .chain(block(1))
            .chain(last.map(String::from))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(description.output_shape, [2, 10]);
    }

    #[test]
    fn parameters_are_counted_as_published() {
        let description = described(Size::TINY, [224, 224], 1000).expect("images fit");
        assert_eq!(description.parameter_count, 5_717_416);
    }

    #[test]
    fn patches_divide_the_image_or_the_error_says_so() {
        let size = Size { depth: 1, width: 4, heads: 2 };
        let tokens = |sides| {
            let rows = described(size, sides, 10).expect("images fit").tensors;
            rows.iter().find(|row| row.name == "pos_embed").map(|row| row.shape[1] - 1)
        };
        assert_eq!(tokens([28, 28]), Some(7 * 7));
        assert_eq!(tokens([64, 32]), Some(16 * 8));
        assert_eq!(tokens([96, 96]), Some(12 * 12));
        assert_eq!(tokens([100, 96]), Some(25 * 24));
        assert_eq!(tokens([224, 224]), Some(14 * 14));
        assert_eq!(
            described(size, [200, 200], 10).expect_err("200 is no multiple of 16").to_string(),
            "graph: model: found images of 200 × 200 pixels, expected sides that patches of 16 pixels \
             divide; try images of another size, or --model resnet18"
        );
        assert!(described(size, [30, 32], 10).is_err());
        let odd = Size { heads: 3, ..size };
        let error = described(odd, [32, 32], 10).expect_err("3 heads of 4 features").to_string();
        assert!(error.contains("graph: blocks.0.attn: attention over rows of 12"), "{error}");
    }
}
