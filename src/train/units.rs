//! What the loss of a language model comes to in the field's units.

use std::f64::consts::LN_2;

use serde::{Deserialize, Serialize};

use crate::batch::{SampleSpec, TargetSpec};
use crate::graph::cost::Cost;
use crate::graph::plan::{Pass, Plan, Program};
use crate::train::compile::OPTIMIZER;

/// Tokens of a vocabulary of bytes.
const BYTES: usize = 256;

/// How samples of text are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextUnits {
    /// Tokens of a sample.
    pub tokens: usize,
    /// Whether a token is a byte.
    pub bytes: bool,
}

impl TextUnits {
    /// Those of samples of `spec`; none where it is no text.
    pub fn of(spec: &SampleSpec) -> Option<Self> {
        match spec.target {
            TargetSpec::Tokens { len, vocabulary, .. } => {
                Some(Self { tokens: len, bytes: vocabulary == BYTES })
            }
            TargetSpec::Class { .. } | TargetSpec::Values { .. } => None,
        }
    }

    /// What a mean loss, in nats a token, and a rate come to.
    pub fn measures(self, loss: Option<f64>, samples_per_s: f64) -> TextMeasures {
        TextMeasures {
            perplexity: loss.map(f64::exp),
            bits_per_byte: loss.filter(|_| self.bytes).map(|loss| loss / LN_2),
            tokens_per_s: Some(self.tokens as f64 * samples_per_s),
        }
    }
}

/// How good and how fast a language model is; nothing where samples are no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TextMeasures {
    /// e to the loss: among how many tokens the model is as undecided as if all were equally likely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Where tokens are bytes: the loss in bits a byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    /// Tokens a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_s: Option<f64>,
}

/// How much of a device training makes use of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Utilisation {
    /// Operations a second of the model's products, forward and backward, a multiply-add being two; what is computed again
    /// to save memory counts once, and attention as if nothing were masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops_per_s: Option<f64>,
    /// The share of what the device was measured to do at best, model FLOP utilisation (Chowdhery et al., "PaLM", 2022);
    /// nothing where that was never measured, see [`peaks`](crate::peaks).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
}

/// What the operations of training are counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Operations {
    /// Operations for a sample.
    pub flops: f64,
    /// Operations a second of the device at best, where known.
    pub peak: Option<f64>,
}

impl Operations {
    /// The work for a sample by the training pass of `program`, which is one that computes nothing twice. The products of an
    /// optimizer are none of the model's.
    pub fn of(program: &Program, peak: Option<f64>) -> Self {
        let of_model = |plan: &Plan| -> Cost {
            let nodes = plan.nodes.iter().filter(|node| node.scope != OPTIMIZER);
            nodes.map(|node| Cost::of_node(plan, node)).sum()
        };
        let cost = program.plans.get(&Pass::Train).map(of_model).unwrap_or_default();
        Self { flops: cost.flops as f64 / program.slot.batch_size as f64, peak }
    }

    /// What a rate of samples comes to.
    pub fn utilisation(self, samples_per_s: f64) -> Utilisation {
        let flops_per_s = self.flops * samples_per_s;
        Utilisation {
            flops_per_s: Some(flops_per_s),
            mfu: self.peak.map(|peak| flops_per_s / peak),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::DType;

    #[test]
    fn a_uniform_guess_over_bytes_takes_eight_bits() {
        let spec = |vocabulary| SampleSpec {
            input_shape: vec![7],
            input_dtype: DType::U16,
            target: TargetSpec::Tokens { len: 7, vocabulary, document_end: None },
        };
        let units = TextUnits::of(&spec(256)).expect("text");
        let loss = 256f64.ln();
        let found = units.measures(Some(loss), 3.0);
        assert_eq!((found.bits_per_byte, found.tokens_per_s), (Some(8.0), Some(21.0)));
        assert!((found.perplexity.expect("text") - 256.0).abs() < 1e-9);
        let unknown = TextMeasures { tokens_per_s: Some(21.0), ..TextMeasures::default() };
        assert_eq!(units.measures(None, 3.0), unknown);
        let units = TextUnits::of(&spec(50_257)).expect("text");
        assert_eq!((units.tokens, units.measures(Some(loss), 1.0).bits_per_byte), (7, None));
        let table = SampleSpec { target: TargetSpec::Class { classes: 256 }, ..spec(256) };
        assert_eq!(TextUnits::of(&table), None);
    }
}
