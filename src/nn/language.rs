//! Language models, of whichever architecture: what training, weights and the making of text ask of them.

use super::gpt::{Gpt, GptConfig};
use super::llama::{Llama, LlamaConfig};
use super::{Mode, Module, init};
use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::graph::op::{Activation, Attending, Op};
use crate::graph::{Graph, TensorId};

/// The sizes and settings of a language model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LanguageConfig {
    /// Of GPT-2's architecture.
    Gpt(GptConfig),
    /// Of LLaMA's.
    Llama(LlamaConfig),
}

impl LanguageConfig {
    /// The sizes behind a name.
    pub fn by_name(name: &str) -> Option<Self> {
        let llama = || LlamaConfig::by_name(name).map(Self::Llama);
        GptConfig::by_name(name).map(Self::Gpt).or_else(llama)
    }

    /// The model for samples of `spec`, which are tokens.
    ///
    /// # Errors
    /// When the samples are no tokens or more than there are positions, or sizes or settings do not fit together.
    pub fn model(self, spec: &SampleSpec) -> Result<LanguageModel> {
        Ok(match self {
            Self::Gpt(config) => Gpt::new(config, spec)?.into(),
            Self::Llama(config) => Llama::new(config, spec)?.into(),
        })
    }

    /// The model with so many tokens and positions.
    ///
    /// # Errors
    /// When sizes or settings do not fit together.
    pub fn with_sizes(self, vocabulary: usize, positions: usize) -> Result<LanguageModel> {
        Ok(match self {
            Self::Gpt(config) => Gpt::with_sizes(config, vocabulary, positions)?.into(),
            Self::Llama(config) => Llama::with_sizes(config, vocabulary, positions)?.into(),
        })
    }

    /// The same with another share of features that training drops.
    pub fn with_dropout(self, dropout: f64) -> Self {
        match self {
            Self::Gpt(config) => GptConfig { dropout, ..config }.into(),
            Self::Llama(config) => LlamaConfig { dropout, ..config }.into(),
        }
    }

    /// The same with another share of the weights of attention that training drops.
    pub fn with_attention_dropout(self, attention_dropout: f64) -> Self {
        match self {
            Self::Gpt(config) => GptConfig { attention_dropout, ..config }.into(),
            Self::Llama(config) => LlamaConfig { attention_dropout, ..config }.into(),
        }
    }

    /// The most tokens that it sees at once, if it says so.
    pub fn positions(&self) -> Option<usize> {
        match self {
            Self::Gpt(config) => config.positions,
            Self::Llama(config) => config.positions,
        }
    }
}

impl From<GptConfig> for LanguageConfig {
    fn from(config: GptConfig) -> Self {
        Self::Gpt(config)
    }
}

impl From<LlamaConfig> for LanguageConfig {
    fn from(config: LlamaConfig) -> Self {
        Self::Llama(config)
    }
}

/// A language model. From tokens `[n, tokens]` it makes logits `[n · tokens, vocabulary]` of the token that follows each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LanguageModel {
    /// Of GPT-2's architecture.
    Gpt(Gpt),
    /// Of LLaMA's.
    Llama(Llama),
}

impl From<Gpt> for LanguageModel {
    fn from(model: Gpt) -> Self {
        Self::Gpt(model)
    }
}

impl From<Llama> for LanguageModel {
    fn from(model: Llama) -> Self {
        Self::Llama(model)
    }
}

impl LanguageModel {
    /// Number of different tokens.
    pub fn vocabulary(&self) -> usize {
        self.decoder().sizes().vocabulary
    }

    /// The most tokens that it sees at once.
    pub fn positions(&self) -> usize {
        self.decoder().sizes().positions
    }

    /// The same model of so many positions, for texts alone: whatever ends a document is forgotten.
    ///
    /// # Errors
    /// As [`LanguageConfig::with_sizes`].
    pub fn with_positions(&self, positions: usize) -> Result<Self> {
        let config = match self {
            Self::Gpt(model) => model.config().into(),
            Self::Llama(model) => LanguageConfig::from(model.config()),
        };
        config.with_sizes(self.vocabulary(), positions)
    }

    /// How its heads divide a row of queries, keys and values.
    pub(crate) fn heads(&self) -> Heads {
        self.decoder().heads()
    }

    /// All but the head, see [`Decoder::trunk`].
    pub(crate) fn trunk(
        &self,
        graph: &mut Graph,
        tokens: Tokens,
        mode: Mode,
        attend: Attend<'_>,
    ) -> Result<Trunk> {
        self.decoder().trunk(graph, tokens, mode, attend)
    }

    fn decoder(&self) -> &dyn Decoder {
        match self {
            Self::Gpt(model) => model,
            Self::Llama(model) => model,
        }
    }
}

impl Module for LanguageModel {
    fn build(&self, graph: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        build(self.decoder(), graph, x, mode)
    }
}

/// How the heads of an attention divide a row of queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// Heads of queries.
    pub queries: usize,
    /// Heads of keys, and as many of values; they divide those of queries.
    pub keys: usize,
    /// Features of a head.
    pub len: usize,
}

impl Heads {
    /// Features of all heads of queries.
    pub fn width(&self) -> usize {
        self.queries * self.len
    }

    /// Features of keys and values.
    pub fn kept(&self) -> usize {
        2 * self.keys * self.len
    }
}

/// Tokens, and where each stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens {
    /// Tokens `[n, tokens]`.
    pub ids: TensorId,
    /// The position of each, `u32[n, tokens]`; without them a token stands where it is in its sample.
    pub positions: Option<TensorId>,
}

/// What comes before the logits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trunk {
    /// A row for each token: `[n · tokens, width]`.
    pub rows: TensorId,
    /// The head's weight `[vocabulary, width]`.
    pub head: TensorId,
}

/// Makes of queries, keys and values `[n, tokens, ..]`, in rows of all heads, what the attention of the layer of that index
/// says about each token: `[n, tokens, width]`.
pub(crate) type Attend<'a> = &'a mut dyn FnMut(&mut Graph, TensorId, usize) -> Result<TensorId>;

/// An architecture.
pub(crate) trait Decoder {
    /// What the text asks of it.
    fn sizes(&self) -> TextSizes;

    /// How its heads divide a row of queries, keys and values.
    fn heads(&self) -> Heads;

    /// Share of the weights of attention that training drops.
    fn attention_dropout(&self) -> f64;

    /// The embedding, all blocks and the last norm, and the weight of the head.
    fn trunk(
        &self,
        graph: &mut Graph,
        tokens: Tokens,
        mode: Mode,
        attend: Attend<'_>,
    ) -> Result<Trunk>;
}

/// What samples of text ask of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextSizes {
    /// Number of different tokens.
    pub vocabulary: usize,
    /// The most tokens that it sees at once.
    pub positions: usize,
    /// The token that ends a document, where tokens attend only to those of their own.
    pub document_end: Option<u32>,
}

impl TextSizes {
    /// Those of samples of `spec` for `model`, whose own number of positions must be enough for them.
    pub fn of(model: &str, positions: Option<usize>, spec: &SampleSpec) -> Result<Self> {
        let TargetSpec::Tokens { len, vocabulary, document_end } = spec.target else {
            let message = format!("takes tokens, found samples of shape {:?}", spec.input_shape);
            return Err(Error::graph(model, message).hint("a text (.txt) or a folder of tokens"));
        };
        let positions = positions.unwrap_or(len);
        if positions < len {
            let message = format!(
                "found samples of {len} tokens, expected at most its {positions} positions"
            );
            return Err(Error::graph(model, message).hint(format!("--context {positions}")));
        }
        Ok(Self { vocabulary, positions, document_end })
    }
}

/// A share that training drops, as a setting.
pub(super) fn expect_share(key: &str, share: f64) -> Result<()> {
    if (0.0..1.0).contains(&share) {
        return Ok(());
    }
    let message = format!("found {share}, expected 0 up to, not including, 1");
    Err(Error::config(format!("model.{key}"), message))
}

/// What makes of rows `[rows, width]` and the head's weight the logits `[rows, vocabulary]`.
pub(crate) fn head_op() -> Op {
    Op::MatMul {
        transpose_a: false,
        transpose_b: true,
        bias: false,
        activation: Activation::Identity,
    }
}

/// The embedding of tokens of any shape, as rows.
pub(super) fn embed(graph: &mut Graph, table: TensorId, ids: TensorId) -> Result<TensorId> {
    let (rows, width) = (graph.shape(ids).iter().product(), graph.shape(table)[1]);
    let y = graph.push_one(Op::Embedding, &[ids, table])?;
    graph.reshape(y, &[rows, width])
}

/// The whole model over tokens `x[n, tokens]`.
pub(super) fn build(
    model: &dyn Decoder,
    graph: &mut Graph,
    x: TensorId,
    mode: Mode,
) -> Result<TensorId> {
    let tensor = graph.tensor(x);
    if tensor.shape.len() != 2 || matches!(tensor.dtype, DType::F32 | DType::F16) {
        let message =
            format!("takes tokens [n, tokens], found {:?} {:?}", tensor.dtype, tensor.shape);
        return Err(Error::graph("language model", message));
    }
    let Heads { queries: heads, keys: kv_heads, .. } = model.heads();
    let dropout = match mode {
        Mode::Train => model.attention_dropout() as f32,
        Mode::Eval => 0.0,
    };
    let (mut masks, mut positions) = (Vec::new(), None);
    if let Some(end) = model.sizes().document_end {
        graph.set_scope("documents");
        let found = graph.push(Op::DocumentStarts { end }, &[x])?;
        masks.push(found[0]);
        positions = Some(found[1]);
        graph.set_scope("");
    }
    let documents = positions.is_some();
    if dropout > 0.0 {
        masks.push(graph.header());
    }
    let attend: Attend<'_> = &mut |graph, qkv, _| {
        // Without dropout all layers share one kernel.
        let salt = match dropout {
            0.0 => 0,
            _ => init::name_hash(&format!("{}.attn_dropout", graph.scope())) as u32,
        };
        let how = Attending { heads, kv_heads, causal: true, documents, dropout, salt };
        let inputs: Vec<TensorId> = [qkv].into_iter().chain(masks.iter().copied()).collect();
        Ok(graph.push(Op::Attention(how), &inputs)?[0])
    };
    let tokens = Tokens { ids: x, positions };
    let Trunk { rows, head } = model.trunk(graph, tokens, mode, attend)?;
    graph.set_scope("lm_head");
    let logits = graph.push_one(head_op(), &[rows, head]);
    graph.set_scope("");
    logits
}
