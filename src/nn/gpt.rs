//! Language models of the architecture of GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners",
//! 2019), with the names, shapes and initial distributions of Hugging Face's `GPT2LMHeadModel`, so that its weights load.

use serde::{Deserialize, Serialize};

use super::build::{self, within};
use super::language::{self, Attend, Decoder, Heads, TextSizes, Tokens, Trunk};
use super::{Mode, Module};
use crate::batch::SampleSpec;
use crate::error::{Error, Result};
use crate::graph::op::{Activation, Op};
use crate::graph::{Graph, Init, TensorId};

/// What every weight starts with; that of a projection onto the residual is divided by √(2 layers).
const STD: f64 = 0.02;
const EPS: f64 = 1e-5;
/// Width of a block's hidden layer, in widths of the model.
const MLP_RATIO: usize = 4;

/// How large a language model is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GptConfig {
    /// Blocks.
    pub layers: usize,
    /// Heads of each attention; they divide the width.
    pub heads: usize,
    /// Features of a token.
    pub width: usize,
    /// Share of features that training drops, of the embeddings and of what each block adds.
    #[serde(default)]
    pub dropout: f64,
    /// Share of the weights of attention that training drops.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Positions that are learned. Without it as many as a sample has tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<usize>,
}

impl GptConfig {
    /// `gpt-nano`: 3 layers of 3 heads, 48 wide.
    pub const NANO: Self = Self::of(3, 3, 48);
    /// `gpt-mini`: 6 layers of 6 heads, 384 wide.
    pub const MINI: Self = Self::of(6, 6, 384);
    /// `gpt2`: 12 layers of 12 heads, 768 wide.
    pub const GPT2: Self = Self::of(12, 12, 768);

    /// Of these sizes, and with no dropout.
    pub const fn of(layers: usize, heads: usize, width: usize) -> Self {
        Self { layers, heads, width, dropout: 0.0, attention_dropout: 0.0, positions: None }
    }

    /// The sizes behind a name.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "gpt-nano" => Some(Self::NANO),
            "gpt-mini" => Some(Self::MINI),
            "gpt2" => Some(Self::GPT2),
            _ => None,
        }
    }
}

/// `GPT2LMHeadModel`: embeddings of tokens and positions, blocks of causal attention and a hidden layer, each after a
/// layer norm and added to what it read, a last norm, and a head that shares its weight with the embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpt {
    config: GptConfig,
    sizes: TextSizes,
}

impl Gpt {
    /// The model for samples of `spec`, which are tokens.
    ///
    /// # Errors
    /// When the samples are no tokens or more than there are positions, the heads do not divide the width, or a setting
    /// is out of range.
    pub fn new(config: GptConfig, spec: &SampleSpec) -> Result<Self> {
        Self::build(config, TextSizes::of("gpt", config.positions, spec)?)
    }

    /// The model with so many tokens and positions.
    ///
    /// # Errors
    /// As [`Gpt::new`].
    pub fn with_sizes(config: GptConfig, vocabulary: usize, positions: usize) -> Result<Self> {
        Self::build(config, TextSizes { vocabulary, positions, document_end: None })
    }

    fn build(config: GptConfig, sizes: TextSizes) -> Result<Self> {
        let GptConfig { layers, heads, width, dropout, attention_dropout, .. } = config;
        if layers == 0 || heads == 0 || width == 0 || !width.is_multiple_of(heads) {
            let message = format!(
                "found {layers} layers of {heads} heads, {width} wide, expected at least 1 of each and heads that \
                 divide the width"
            );
            return Err(Error::graph("gpt", message).hint("layers = 3, heads = 3, width = 48"));
        }
        language::expect_share("gpt.dropout", dropout)?;
        language::expect_share("gpt.attention_dropout", attention_dropout)?;
        Ok(Self { config, sizes })
    }

    /// Its sizes.
    pub fn config(&self) -> GptConfig {
        self.config
    }

    fn block(
        &self,
        graph: &mut Graph,
        x: TensorId,
        mode: Mode,
        attend: impl FnOnce(&mut Graph, TensorId) -> Result<TensorId>,
    ) -> Result<TensorId> {
        let GptConfig { layers, width, dropout, .. } = self.config;
        let residual_std = STD / (2.0 * layers as f64).sqrt();
        let y = within(graph, "ln_1", |graph| build::layer_norm(graph, x, EPS))?;
        let y = within(graph, "attn", |graph| {
            let qkv = conv1d(graph, "c_attn", y, 3 * width, STD)?;
            let y = attend(graph, qkv)?;
            let y = conv1d(graph, "c_proj", y, width, residual_std)?;
            within(graph, "resid_dropout", |graph| build::dropout(graph, y, dropout, mode))
        })?;
        let x = graph.push_one(Op::Add, &[x, y])?;
        let y = within(graph, "ln_2", |graph| build::layer_norm(graph, x, EPS))?;
        let y = within(graph, "mlp", |graph| {
            let y = conv1d(graph, "c_fc", y, MLP_RATIO * width, STD)?;
            let y = within(graph, "act", |graph| graph.push_one(Op::GeluTanh, &[y]))?;
            let y = conv1d(graph, "c_proj", y, width, residual_std)?;
            within(graph, "dropout", |graph| build::dropout(graph, y, dropout, mode))
        })?;
        graph.push_one(Op::Add, &[x, y])
    }
}

impl Decoder for Gpt {
    fn sizes(&self) -> TextSizes {
        self.sizes
    }

    fn heads(&self) -> Heads {
        let GptConfig { heads, width, .. } = self.config;
        Heads { queries: heads, keys: heads, len: width / heads }
    }

    fn attention_dropout(&self) -> f64 {
        self.config.attention_dropout
    }

    fn trunk(
        &self,
        graph: &mut Graph,
        Tokens { ids, positions }: Tokens,
        mode: Mode,
        attend: Attend<'_>,
    ) -> Result<Trunk> {
        let GptConfig { layers, width, dropout, .. } = self.config;
        let [n, t] = [0, 1].map(|axis| graph.shape(ids)[axis]);
        let mut table = |name: &str, rows| {
            let name = format!("transformer.{name}.weight");
            graph.param(&name, &[rows, width], normal(STD))
        };
        let (head, places) =
            (table("wte", self.sizes.vocabulary), table("wpe", self.sizes.positions));
        graph.set_scope("transformer.wte");
        let x = language::embed(graph, head, ids)?;
        graph.set_scope("transformer.wpe");
        let x = match positions {
            Some(positions) => {
                let places = language::embed(graph, places, positions)?;
                graph.push_one(Op::Add, &[x, places])?
            }
            None => {
                let first = Op::Slice { axis: 0, start: 0, len: t };
                let all = t == self.sizes.positions;
                let places = if all { places } else { graph.push_one(first, &[places])? };
                let x = build::add_positions(graph, x, n, places)?;
                graph.reshape(x, &[n * t, width])?
            }
        };
        graph.set_scope("transformer.drop");
        let mut x = build::dropout(graph, x, dropout, mode)?;
        graph.set_scope("");
        for index in 0..layers {
            x = within(graph, &format!("transformer.h.{index}"), |graph| {
                self.block(graph, x, mode, |graph, qkv| {
                    let qkv = graph.reshape(qkv, &[n, t, 3 * width])?;
                    let y = attend(graph, qkv, index)?;
                    graph.reshape(y, &[n * t, width])
                })
            })?;
        }
        let rows = within(graph, "transformer.ln_f", |graph| build::layer_norm(graph, x, EPS))?;
        Ok(Trunk { rows, head })
    }
}

impl Module for Gpt {
    fn build(&self, graph: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        language::build(self, graph, x, mode)
    }
}

fn normal(std: f64) -> Init {
    Init::Normal { std: std as f32 }
}

/// Hugging Face's `Conv1D`: a linear layer whose weight is `[in, out]`.
fn conv1d(graph: &mut Graph, name: &str, x: TensorId, out: usize, std: f64) -> Result<TensorId> {
    let features = graph.shape(x)[1];
    within(graph, name, |graph| {
        let weight = graph.param("weight", &[features, out], normal(std));
        let bias = graph.param("bias", &[out], Init::Constant(0.0));
        let op = Op::MatMul {
            transpose_a: false,
            transpose_b: false,
            bias: true,
            activation: Activation::Identity,
        };
        graph.push_one(op, &[x, weight, bias])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, TargetSpec};
    use crate::nn::describe::describe;
    use crate::nn::models::by_name;

    fn spec(context: usize, vocabulary: usize) -> SampleSpec {
        SampleSpec {
            input_shape: vec![context],
            input_dtype: DType::U16,
            target: TargetSpec::Tokens { len: context, vocabulary, document_end: None },
        }
    }

    #[test]
    fn names_shapes_and_order_are_hugging_faces() {
        let config = GptConfig { dropout: 0.1, ..GptConfig::of(2, 3, 12) };
        let spec = spec(8, 50);
        let description =
            describe(&Gpt::new(config, &spec).expect("fits"), &spec, 2).expect("fits");
        let found = description.tensor_lines();
        let block = |i: usize| {
            [
                "ln_1.weight [12]",
                "ln_1.bias [12]",
                "attn.c_attn.weight [12, 36]",
                "attn.c_attn.bias [36]",
                "attn.c_proj.weight [12, 12]",
                "attn.c_proj.bias [12]",
                "ln_2.weight [12]",
                "ln_2.bias [12]",
                "mlp.c_fc.weight [12, 48]",
                "mlp.c_fc.bias [48]",
                "mlp.c_proj.weight [48, 12]",
                "mlp.c_proj.bias [12]",
            ]
            .map(|name| format!("transformer.h.{i}.{name}"))
        };
        let first = ["transformer.wte.weight [50, 12]", "transformer.wpe.weight [8, 12]"];
        let last = ["transformer.ln_f.weight [12]", "transformer.ln_f.bias [12]"];
        let expected: Vec<String> = first
            .map(String::from)
            .into_iter()
            .chain(block(0))
            .chain(block(1))
            .chain(last.map(String::from))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(description.output_shape, [16, 50]);
    }

    #[test]
    fn parameters_are_counted_as_published() {
        let spec = spec(1024, 50_257);
        let gpt2 = by_name("gpt2", &spec).expect("fits");
        let description = describe(&gpt2, &spec, 1).expect("fits");
        assert_eq!(description.parameter_count, 124_439_808);
    }

    #[test]
    fn what_does_not_fit_is_one_clear_line() {
        let sizes = |layers, heads, width| GptConfig {
            positions: Some(4),
            ..GptConfig::of(layers, heads, width)
        };
        let message =
            |config, context| Gpt::new(config, &spec(context, 9)).expect_err("refused").to_string();
        assert_eq!(
            message(sizes(1, 1, 4), 5),
            "graph: gpt: found samples of 5 tokens, expected at most its 4 positions; try --context 4"
        );
        assert!(message(sizes(1, 3, 4), 4).contains("1 layers of 3 heads, 4 wide"));
        assert!(message(sizes(0, 1, 4), 4).contains("at least 1 of each"));
        let dropping = GptConfig { dropout: 1.0, ..sizes(1, 1, 4) };
        assert!(message(dropping, 4).starts_with("config: model.gpt.dropout: found 1"));
        let text = spec(8, 50);
        let cnn = by_name("cnn", &text).err().expect("no text").to_string();
        assert_eq!(
            cnn,
            "graph: cnn: takes numbers, found samples of tokens; try --model gpt-nano, gpt-mini, gpt2, llama-nano or llama-mini"
        );
    }
}
