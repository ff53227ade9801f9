//! The program that makes text: a stretch of several tokens of every sequence, and the next token of every sequence. Both
//! keep keys and values in the same caches, so that no token is computed twice.

use crate::batch::{DType, SLOT_ALIGN_BYTES, SampleSpec, TargetSpec};
use crate::error::Result;
use crate::graph::op::Op;
use crate::graph::plan::{Pass, Program, ProgramBuilder};
use crate::graph::{Arena, Graph, Role, TensorId};
use crate::nn::Mode;
use crate::nn::language::{Attend, LanguageModel, Tokens, Trunk, head_op};

/// Where logits lie behind the metrics of a step, in elements.
const LOGITS_AT: usize = 64;

/// What lies where in a slot, and how much of it there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Sequences at once.
    pub sequences: usize,
    /// Tokens of a stretch.
    pub stretch: usize,
}

impl Layout {
    /// Where it says of each sequence which row of a stretch its last token is, in bytes behind the positions.
    pub fn last_offset(&self) -> usize {
        (4 * self.sequences * self.stretch).next_multiple_of(SLOT_ALIGN_BYTES)
    }

    /// The tokens of each sequence are its input; positions and last rows lie where targets would.
    fn spec(&self, vocabulary: usize) -> SampleSpec {
        let words = (self.last_offset() + 4 * self.sequences).div_ceil(4 * self.sequences);
        SampleSpec {
            input_shape: vec![self.stretch],
            input_dtype: DType::U32,
            target: TargetSpec::Tokens { len: words, vocabulary, document_end: None },
        }
    }

    /// The program, whose output is the logits `[sequences, vocabulary]` of what follows each sequence.
    pub fn program(&self, model: &LanguageModel) -> Result<Program> {
        let mut builder = ProgramBuilder::new(&self.spec(model.vocabulary()), self.sequences);
        let (graph, logits) = self.graph(model, self.stretch)?;
        builder.add(Pass::Eval, graph, &[])?;
        let (graph, _) = self.graph(model, 1)?;
        builder.add(Pass::Decode, graph, &[])?;
        Ok(builder.build(logits))
    }

    /// The model over `tokens` tokens of each sequence.
    fn graph(&self, model: &LanguageModel, tokens: usize) -> Result<(Graph, TensorId)> {
        let (n, capacity, heads) = (self.sequences, model.positions(), model.heads());
        let mut graph = Graph::new();
        let ids = graph.add_tensor("ids", &[n, tokens], DType::U32, Role::Input);
        let positions = graph.add_tensor("positions", &[n, tokens], DType::U32, Role::Target);
        let cache_len = (n * capacity * heads.kept()).next_multiple_of(SLOT_ALIGN_BYTES / 4);
        let attend: Attend<'_> = &mut |graph, qkv, layer| {
            let shape = [n, tokens, heads.width()];
            let y = graph.add_tensor("y", &shape, DType::F32, Role::Activation);
            let at = Role::Stretch(Arena::Cache, layer * cache_len);
            let cache = graph.add_tensor("cache", &[n, capacity, heads.kept()], DType::F32, at);
            let op = Op::CachedAttention { heads: heads.queries, kv_heads: heads.keys };
            graph.push_into(op, &[qkv, positions], &[y, cache]);
            Ok(y)
        };
        let tokens_in = Tokens { ids, positions: Some(positions) };
        let Trunk { rows, head } = model.trunk(&mut graph, tokens_in, Mode::Eval, attend)?;
        graph.set_scope("lm_head");
        let rows = match tokens {
            1 => rows,
            _ => {
                let last = Role::Beside(self.last_offset());
                let last = graph.add_tensor("last", &[n], DType::U32, last);
                graph.push_one(Op::Embedding, &[last, rows])?
            }
        };
        let at = Role::Stretch(Arena::Metrics, LOGITS_AT);
        let logits = graph.add_tensor("logits", &[n, model.vocabulary()], DType::F32, at);
        graph.push_into(head_op(), &[rows, head], &[logits]);
        Ok((graph, logits))
    }
}
