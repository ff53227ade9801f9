//! Language models of the architecture of LLaMA (Touvron et al., "LLaMA: Open and Efficient Foundation Language Models",
//! 2023), with the names, shapes and initial distributions of Hugging Face's `LlamaForCausalLM`, so that its weights load.

use serde::{Deserialize, Serialize};

use super::build::{self, Start, within};
use super::language::{self, Attend, Decoder, Heads, TextSizes, Tokens, Trunk};
use super::{Mode, Module};
use crate::batch::SampleSpec;
use crate::error::{Error, Result};
use crate::graph::op::Op;
use crate::graph::{Graph, Init, TensorId};

/// What every weight but those of norms starts with.
const STD: f64 = 0.02;
/// What the width of a hidden layer that is not given is a multiple of.
const HIDDEN_MULTIPLE: usize = 32;

/// How large a language model is, and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaConfig {
    /// Blocks.
    pub layers: usize,
    /// Heads of the queries of each attention; they divide the width into even parts.
    pub heads: usize,
    /// Features of a token.
    pub width: usize,
    /// Heads of keys and values, which divide those of queries. Without it as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Width of a block's hidden layer. Without it 8/3 of the model's, up to a multiple of 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<usize>,
    /// The slowest feature of a head turns once in about 2π times so many tokens.
    #[serde(default = "theta")]
    pub theta: f64,
    /// Added to the mean of squares in norms.
    #[serde(default = "eps")]
    pub eps: f64,
    /// Whether the head shares its weight with the embedding.
    #[serde(default)]
    pub tied: bool,
    /// Share of features that training drops, of the embeddings and of what each block adds.
    #[serde(default)]
    pub dropout: f64,
    /// Share of the weights of attention that training drops.
    #[serde(default)]
    pub attention_dropout: f64,
    /// The most tokens that it sees at once. Without it as many as a sample has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<usize>,
}

const fn theta() -> f64 {
    10_000.0
}

const fn eps() -> f64 {
    1e-6
}

impl LlamaConfig {
    /// `llama-nano`: 3 layers of 3 heads that share keys and values, 48 wide.
    pub const NANO: Self = Self::of(3, 3, 1, 48);
    /// `llama-mini`: 6 layers of 6 heads, of which 3 each share keys and values, 384 wide.
    pub const MINI: Self = Self::of(6, 6, 2, 384);

    /// With the settings of a table that leaves out what it can.
    pub const fn of(layers: usize, heads: usize, kv_heads: usize, width: usize) -> Self {
        Self {
            layers,
            heads,
            width,
            kv_heads: Some(kv_heads),
            hidden: None,
            theta: theta(),
            eps: eps(),
            tied: false,
            dropout: 0.0,
            attention_dropout: 0.0,
            positions: None,
        }
    }

    /// The sizes behind a name.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "llama-nano" => Some(Self::NANO),
            "llama-mini" => Some(Self::MINI),
            _ => None,
        }
    }

    /// Width of a block's hidden layer, given or not.
    pub fn hidden(&self) -> usize {
        let usual = || (8 * self.width).div_ceil(3).next_multiple_of(HIDDEN_MULTIPLE);
        self.hidden.unwrap_or_else(usual)
    }
}

/// `LlamaForCausalLM`: an embedding, blocks of causal attention with rotary positions and of a gated hidden layer, each
/// after a root mean square norm and added to what it read, a last norm, and a head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama {
    config: LlamaConfig,
    sizes: TextSizes,
}

impl Llama {
    /// The model for samples of `spec`, which are tokens.
    ///
    /// # Errors
    /// When the samples are no tokens or more than there are positions, heads do not divide what they must, or a setting
    /// is out of range.
    pub fn new(config: LlamaConfig, spec: &SampleSpec) -> Result<Self> {
        Self::build(config, TextSizes::of("llama", config.positions, spec)?)
    }

    /// The model with so many tokens and positions.
    ///
    /// # Errors
    /// As [`Llama::new`].
    pub fn with_sizes(config: LlamaConfig, vocabulary: usize, positions: usize) -> Result<Self> {
        Self::build(config, TextSizes { vocabulary, positions, document_end: None })
    }

    fn build(config: LlamaConfig, sizes: TextSizes) -> Result<Self> {
        let LlamaConfig { layers, heads, width, theta, eps, .. } = config;
        let kv_heads = config.kv_heads.unwrap_or(heads);
        let divides = heads > 0 && kv_heads > 0 && width.is_multiple_of(2 * heads);
        if layers == 0 || width == 0 || !divides || !heads.is_multiple_of(kv_heads) {
            let message = format!(
                "found {layers} layers of {heads} heads that share {kv_heads} of keys and values, {width} wide, expected at \
                 least 1 of each, heads that divide the width into even parts, and a number of keys that divides the heads"
            );
            return Err(Error::graph("llama", message)
                .hint("layers = 3, heads = 3, kv_heads = 1, width = 48"));
        }
        let expect = |key: &str, holds: bool, value: f64, expected: &str| match holds {
            true => Ok(()),
            false => {
                let message = format!("found {value}, expected {expected}");
                Err(Error::config(format!("model.llama.{key}"), message))
            }
        };
        language::expect_share("llama.dropout", config.dropout)?;
        language::expect_share("llama.attention_dropout", config.attention_dropout)?;
        expect("theta", theta > 1.0 && theta.is_finite(), theta, "a number above 1")?;
        expect("eps", eps > 0.0 && eps.is_finite(), eps, "a number above 0")?;
        expect("hidden", config.hidden() > 0, 0.0, "at least 1")?;
        Ok(Self { config, sizes })
    }

    /// Its sizes and settings.
    pub fn config(&self) -> LlamaConfig {
        self.config
    }

    fn block(
        &self,
        graph: &mut Graph,
        x: TensorId,
        mode: Mode,
        attend: impl FnOnce(&mut Graph, [TensorId; 3]) -> Result<TensorId>,
    ) -> Result<TensorId> {
        let LlamaConfig { width, eps, dropout, .. } = self.config;
        let heads = self.heads();
        let y = within(graph, "input_layernorm", |graph| build::rms_norm(graph, x, eps))?;
        let y = within(graph, "self_attn", |graph| {
            let kept = heads.kept() / 2;
            let q = linear(graph, "q_proj", y, heads.width())?;
            let k = linear(graph, "k_proj", y, kept)?;
            let v = linear(graph, "v_proj", y, kept)?;
            let y = attend(graph, [q, k, v])?;
            let y = linear(graph, "o_proj", y, width)?;
            within(graph, "dropout", |graph| build::dropout(graph, y, dropout, mode))
        })?;
        let x = graph.push_one(Op::Add, &[x, y])?;
        let norm = "post_attention_layernorm";
        let y = within(graph, norm, |graph| build::rms_norm(graph, x, eps))?;
        let y = within(graph, "mlp", |graph| {
            let gate = linear(graph, "gate_proj", y, self.config.hidden())?;
            let up = linear(graph, "up_proj", y, self.config.hidden())?;
            let y = within(graph, "act_fn", |graph| graph.push_one(Op::SwiGlu, &[gate, up]))?;
            let y = linear(graph, "down_proj", y, width)?;
            within(graph, "dropout", |graph| build::dropout(graph, y, dropout, mode))
        })?;
        graph.push_one(Op::Add, &[x, y])
    }
}

impl Decoder for Llama {
    fn sizes(&self) -> TextSizes {
        self.sizes
    }

    fn heads(&self) -> Heads {
        let LlamaConfig { heads, kv_heads, width, .. } = self.config;
        Heads { queries: heads, keys: kv_heads.unwrap_or(heads), len: width / heads }
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
        let LlamaConfig { layers, width, theta, eps, tied, dropout, .. } = self.config;
        let heads = self.heads();
        let [n, t] = [0, 1].map(|axis| graph.shape(ids)[axis]);
        graph.set_scope("model.embed_tokens");
        let table = graph.param("weight", &[self.sizes.vocabulary, width], normal());
        let x = language::embed(graph, table, ids)?;
        let mut x = build::dropout(graph, x, dropout, mode)?;
        graph.set_scope("model");
        let rows = if positions.is_some() { self.sizes.positions } else { t };
        let angles = graph.constant("rotary", rotary_table(rows, heads.len, theta));
        let angles = graph.reshape(angles, &[rows, heads.len])?;
        let angles: Vec<TensorId> = [angles].into_iter().chain(positions).collect();
        graph.set_scope("");
        for index in 0..layers {
            x = within(graph, &format!("model.layers.{index}"), |graph| {
                self.block(graph, x, mode, |graph, parts| {
                    let mut inputs = Vec::with_capacity(5);
                    for part in parts {
                        let features = graph.shape(part)[1];
                        inputs.push(graph.reshape(part, &[n, t, features])?);
                    }
                    inputs.extend(&angles);
                    let rotary = Op::Rotary { positions: positions.is_some() };
                    let qkv = graph.push_one(rotary, &inputs)?;
                    let y = attend(graph, qkv, index)?;
                    graph.reshape(y, &[n * t, heads.width()])
                })
            })?;
        }
        let rows = within(graph, "model.norm", |graph| build::rms_norm(graph, x, eps))?;
        let head = match tied {
            true => table,
            false => graph.param("lm_head.weight", &[self.sizes.vocabulary, width], normal()),
        };
        Ok(Trunk { rows, head })
    }
}

impl Module for Llama {
    fn build(&self, graph: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        language::build(self, graph, x, mode)
    }
}

fn normal() -> Init {
    Init::Normal { std: STD as f32 }
}

fn linear(graph: &mut Graph, name: &str, x: TensorId, out: usize) -> Result<TensorId> {
    within(graph, name, |graph| build::linear(graph, x, out, false, Start::Normal { std: STD }))
}

/// What [`Op::Rotary`] turns by: of each position the cosines of its angles, which are position / theta^(2i / len), and
/// then their sines.
fn rotary_table(positions: usize, len: usize, theta: f64) -> Vec<f32> {
    let angle =
        |position: usize, i: usize| position as f64 * theta.powf(-((2 * i) as f64) / len as f64);
    let row = |position: usize| {
        let angles = (0..len / 2).map(move |i| angle(position, i));
        angles.clone().map(f64::cos).chain(angles.map(f64::sin))
    };
    (0..positions).flat_map(row).map(|x| x as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, TargetSpec};
    use crate::graph::Role;
    use crate::graph::plan::{Pass, ProgramBuilder};
    use crate::nn::describe::describe;

    fn spec(context: usize, vocabulary: usize) -> SampleSpec {
        SampleSpec {
            input_shape: vec![context],
            input_dtype: DType::U16,
            target: TargetSpec::Tokens { len: context, vocabulary, document_end: None },
        }
    }

    fn tensors(config: LlamaConfig) -> Vec<String> {
        let spec = spec(8, 50);
        let model = Llama::new(config, &spec).expect("fits");
        let description = describe(&model, &spec, 2).expect("fits");
        assert_eq!(description.output_shape, [16, 50]);
        description.tensor_lines()
    }

    #[test]
    fn names_shapes_and_order_are_hugging_faces() {
        let config = LlamaConfig { hidden: Some(20), ..LlamaConfig::of(2, 4, 2, 16) };
        let block = |i: usize| {
            [
                "input_layernorm.weight [16]",
                "self_attn.q_proj.weight [16, 16]",
                "self_attn.k_proj.weight [8, 16]",
                "self_attn.v_proj.weight [8, 16]",
                "self_attn.o_proj.weight [16, 16]",
                "post_attention_layernorm.weight [16]",
                "mlp.gate_proj.weight [20, 16]",
                "mlp.up_proj.weight [20, 16]",
                "mlp.down_proj.weight [16, 20]",
            ]
            .map(|name| format!("model.layers.{i}.{name}"))
        };
        let mut expected = vec!["model.embed_tokens.weight [50, 16]".to_string()];
        expected.extend(block(0));
        expected.extend(block(1));
        expected.push("model.norm.weight [16]".into());
        assert_eq!(tensors(LlamaConfig { tied: true, ..config }), expected);
        expected.push("lm_head.weight [50, 16]".into());
        assert_eq!(tensors(config), expected);
    }

    #[test]
    fn parameters_are_counted_as_published() {
        // TinyLlama 1.1B.
        let config = LlamaConfig { hidden: Some(5632), ..LlamaConfig::of(22, 32, 4, 2048) };
        let spec = spec(2048, 32_000);
        let model = Llama::new(config, &spec).expect("fits");
        let description = describe(&model, &spec, 1).expect("fits");
        assert_eq!(description.parameter_count, 1_100_048_384);
        assert_eq!(LlamaConfig::MINI.hidden(), 1024);
    }

    #[test]
    fn angles_are_hugging_faces() {
        let table = rotary_table(3, 4, 10_000.0);
        assert_eq!(table[..4], [1.0, 1.0, 0.0, 0.0]);
        let expected = [2f64.cos(), 0.02f64.cos(), 2f64.sin(), 0.02f64.sin()].map(|x| x as f32);
        assert_eq!(table[8..], expected);
    }

    #[test]
    fn passes_share_the_angles() {
        let spec = spec(8, 50);
        let model = Llama::new(LlamaConfig::of(2, 4, 2, 16), &spec).expect("fits");
        let mut builder = ProgramBuilder::new(&spec, 1);
        let mut output = None;
        for (pass, mode) in [(Pass::Train, Mode::Train), (Pass::Eval, Mode::Eval)] {
            let mut graph = Graph::new();
            let ids = graph.add_tensor("ids", &[1, 8], DType::U16, Role::Input);
            let y = model.build(&mut graph, ids, mode).expect("builds");
            builder.add(pass, graph, &[y]).expect("fits");
            output = Some(y);
        }
        let program = builder.build(output.expect("two passes"));
        // Of 8 positions and 4 features, with what fills it up.
        assert_eq!(program.consts.len(), 64);
        assert_eq!(program.consts[..32], rotary_table(8, 4, 10_000.0));
    }

    #[test]
    fn what_does_not_fit_is_one_clear_line() {
        let message = |config| Llama::new(config, &spec(4, 9)).expect_err("refused").to_string();
        let sizes = LlamaConfig::of;
        let found = message(sizes(1, 3, 2, 12));
        assert!(
            found.contains("1 layers of 3 heads that share 2 of keys and values, 12 wide"),
            "{found}"
        );
        // Heads of 3 features, which cannot turn by twos.
        assert!(message(sizes(1, 2, 2, 6)).contains("even parts"));
        assert!(message(sizes(0, 1, 1, 4)).contains("at least 1 of each"));
        let found = message(LlamaConfig { theta: 0.0, ..sizes(1, 1, 1, 4) });
        assert_eq!(found, "config: model.llama.theta: found 0, expected a number above 1");
        let found = message(LlamaConfig { positions: Some(3), ..sizes(1, 1, 1, 4) });
        assert_eq!(
            found,
            "graph: llama: found samples of 4 tokens, expected at most its 3 positions; try --context 3"
        );
    }
}
