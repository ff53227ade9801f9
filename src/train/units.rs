//! What the loss of a language model comes to in the field's units.

use std::f64::consts::LN_2;

use crate::batch::{SampleSpec, TargetSpec};

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

    /// What a mean loss, in nats a token, comes to in bits a byte of text; none where tokens are no bytes.
    pub fn bits_per_byte(self, loss: f64) -> Option<f64> {
        self.bytes.then_some(loss / LN_2)
    }
}

/// Among how many tokens a model of this mean loss, in nats, is as undecided as if all were equally likely.
pub fn perplexity(loss: f64) -> f64 {
    loss.exp()
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
        assert_eq!(units.bits_per_byte(loss), Some(8.0));
        assert!((perplexity(loss) - 256.0).abs() < 1e-9);
        let units = TextUnits::of(&spec(50_257)).expect("text");
        assert_eq!((units.tokens, units.bits_per_byte(loss)), (7, None));
        let table = SampleSpec { target: TargetSpec::Class { classes: 256 }, ..spec(256) };
        assert_eq!(TextUnits::of(&table), None);
    }
}
