//! The program that makes text. A pass takes so many rows, each a token at a position of any of the sequences: the next one
//! of each text, and stretches of prompts beside them. All passes keep keys and values in the same caches, so that no token
//! is computed twice.

use std::ops::Range;

use crate::batch::{DType, SLOT_ALIGN_BYTES, SampleSpec, TargetSpec};
use crate::error::Result;
use crate::graph::choice::{CHOICE_LEN, CHOSEN_LEN};
use crate::graph::op::Op;
use crate::graph::plan::{Pass, Program, ProgramBuilder};
use crate::graph::{Arena, Graph, Role, TensorId};
use crate::nn::Mode;
use crate::nn::language::{Attend, LanguageModel, Tokens, Trunk, head_op};

/// Where the choices lie behind the metrics of a step, in elements.
const CHOSEN_AT: usize = 64;

/// Rows of a pass that are there for prompts, whatever else it does: enough for products to pay, few enough for the texts
/// under way not to wait for long.
const STRETCH: usize = 64;

/// Each pass has so many times the rows of the one before: what is not needed of a pass is computed for nothing, and each
/// has kernels to be compiled.
const GROWTH: usize = 4;

/// What lies where in a slot, and how much of it there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Sequences at once.
    pub sequences: usize,
    /// Rows of the largest pass.
    pub rows: usize,
    /// Words of a choice.
    pub choice_len: usize,
    /// The type of keys and values that are kept.
    pub cache: DType,
}

impl Layout {
    pub fn new(model: &LanguageModel, sequences: usize) -> Self {
        let rows = (sequences + STRETCH).min(sequences * model.positions());
        Self {
            sequences,
            rows,
            choice_len: CHOICE_LEN + model.vocabulary().div_ceil(32),
            cache: DType::F32,
        }
    }

    /// Rows of each pass, ascending.
    pub fn sizes(&self) -> impl Iterator<Item = usize> + use<> {
        let most = self.rows;
        let smaller = std::iter::successors(Some(1), |rows| Some(rows * GROWTH));
        smaller.take_while(move |&rows| rows < most).chain([most])
    }

    /// Rows of the smallest pass that takes so many.
    pub fn size(&self, rows: usize) -> usize {
        self.sizes().find(|&size| size >= rows).unwrap_or(self.rows)
    }

    /// Texts that a pass of so many rows can go on with.
    pub fn texts(&self, rows: usize) -> usize {
        rows.min(self.sequences)
    }

    /// Where the last row of each text is told, in bytes behind the places.
    pub fn last_offset(&self) -> usize {
        (2 * 4 * self.rows).next_multiple_of(SLOT_ALIGN_BYTES)
    }

    /// Where the choices are, in bytes behind the places.
    pub fn choices_offset(&self) -> usize {
        (self.last_offset() + 4 * self.sequences).next_multiple_of(SLOT_ALIGN_BYTES)
    }

    /// The choice of a text, in bytes behind the places.
    pub fn choice(&self, text: usize) -> Range<usize> {
        let at = self.choices_offset() + 4 * self.choice_len * text;
        at..at + 4 * self.choice_len
    }

    /// The tokens of rows are the input; all else lies where targets would.
    fn spec(&self, vocabulary: usize) -> SampleSpec {
        let words = self.choice(self.sequences).start.div_ceil(4 * self.rows);
        SampleSpec {
            input_shape: vec![1],
            input_dtype: DType::U32,
            target: TargetSpec::Tokens { len: words, vocabulary, document_end: None },
        }
    }

    /// The program, whose output is the tokens that follow and what is told of each choice `[sequences, CHOSEN_LEN]`.
    pub fn program(&self, model: &LanguageModel) -> Result<Program> {
        let mut builder = ProgramBuilder::new(&self.spec(model.vocabulary()), self.rows);
        let mut output = None;
        for rows in self.sizes() {
            let (graph, chosen) = self.graph(model, rows)?;
            builder.add(Pass::Decode(rows), graph, &[])?;
            output.get_or_insert(chosen);
        }
        // There is always a pass of one row.
        Ok(builder.build(output.unwrap_or(TensorId(0))))
    }

    /// The model over so many rows.
    fn graph(&self, model: &LanguageModel, rows: usize) -> Result<(Graph, TensorId)> {
        let (n, capacity, heads) = (self.sequences, model.positions(), model.heads());
        let texts = self.texts(rows);
        let mut graph = Graph::new();
        // The same tensor in every pass, though passes write different parts of it.
        let at = Role::Stretch(Arena::Metrics, CHOSEN_AT);
        let output = graph.add_tensor("output", &[n, CHOSEN_LEN], DType::F32, at);
        let ids = graph.add_tensor("ids", &[1, rows], DType::U32, Role::Input);
        let positions = graph.add_tensor("positions", &[1, rows], DType::U32, Role::Target);
        let places = graph.add_tensor("places", &[2, rows], DType::U32, Role::Beside(0));
        let cache_bytes = n * capacity * heads.kept() * self.cache.bytes();
        let cache_len = cache_bytes.next_multiple_of(SLOT_ALIGN_BYTES) / 4;
        let attend: Attend<'_> = &mut |graph, qkv, layer| {
            let row = *graph.shape(qkv).last().unwrap_or(&0);
            let qkv = graph.reshape(qkv, &[rows, row])?;
            let y = graph.add_tensor("y", &[rows, heads.width()], DType::F32, Role::Activation);
            let at = Role::Stretch(Arena::Cache, layer * cache_len);
            let cache = graph.add_tensor("cache", &[n, capacity, heads.kept()], self.cache, at);
            let op = Op::CachedAttention { heads: heads.queries, kv_heads: heads.keys };
            graph.push_into(op, &[qkv, places], &[y, cache]);
            graph.reshape(y, &[1, rows, heads.width()])
        };
        let tokens = Tokens { ids, positions: Some(positions) };
        let Trunk { rows: x, head } = model.trunk(&mut graph, tokens, Mode::Eval, attend)?;
        graph.set_scope("lm_head");
        let last = Role::Beside(self.last_offset());
        let last = graph.add_tensor("last", &[texts], DType::U32, last);
        let x = graph.push_one(Op::Embedding, &[last, x])?;
        let logits = graph.push_one(head_op(), &[x, head])?;
        let choices = Role::Beside(self.choices_offset());
        let choices = graph.add_tensor("choices", &[texts, self.choice_len], DType::U32, choices);
        let at = Role::Stretch(Arena::Metrics, CHOSEN_AT);
        let chosen = graph.add_tensor("chosen", &[texts, CHOSEN_LEN], DType::F32, at);
        let counts = Role::Stretch(Arena::Counts, 0);
        let counts = graph.add_tensor("counts", &[n, model.vocabulary()], DType::F32, counts);
        graph.push_into(Op::ChooseToken, &[logits, choices], &[chosen, counts]);
        Ok((graph, output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(sequences: usize, positions: usize) -> Layout {
        let config = crate::nn::language::LanguageConfig::from(crate::nn::gpt::GptConfig::NANO);
        Layout::new(&config.with_sizes(100, positions).expect("fits"), sequences)
    }

    #[test]
    fn passes_grow_until_all_texts_and_a_stretch_fit() {
        let sizes = |sequences, positions| layout(sequences, positions).sizes().collect::<Vec<_>>();
        assert_eq!(sizes(1, 1), [1]);
        assert_eq!(sizes(1, 16), [1, 4, 16]);
        assert_eq!(sizes(1, 1024), [1, 4, 16, 64, 65]);
        assert_eq!(sizes(8, 256), [1, 4, 16, 64, 72]);
        assert_eq!([5, 16, 17].map(|rows| layout(8, 256).size(rows)), [16, 16, 64]);
        assert_eq!(layout(8, 256).size(72), 72);
    }

    #[test]
    fn parts_of_a_slot_do_not_overlap() {
        let layout = layout(3, 256);
        assert!(layout.last_offset() >= 2 * 4 * layout.rows);
        assert!(layout.choices_offset() >= layout.last_offset() + 4 * 3);
        assert_eq!(layout.choice_len, 11 + 4);
        assert_eq!(layout.choice(1).start, layout.choice(0).end);
        let TargetSpec::Tokens { len, .. } = layout.spec(100).target else { panic!("tokens") };
        assert!(4 * len * layout.rows >= layout.choice(2).end);
    }
}
