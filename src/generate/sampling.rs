//! How the tokens of a text are chosen.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::graph::choice::{ALTERNATIVES_MAX, TokenChoice};
use crate::rng::Rng;

/// How tokens are drawn. What limits the choice applies in this order: the repetition penalty, the presence and frequency
/// penalties, the temperature, top-k, top-p, min-p; as in Hugging Face's `generate` and vLLM.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Tokens made for each prompt at most.
    pub tokens: usize,
    /// What logits are divided by; at 0 the most probable token is taken, of several the first.
    pub temperature: f64,
    /// Only so many of the most probable tokens; 0: all.
    pub top_k: usize,
    /// Only the most probable tokens that together reach this probability (Holtzman et al., 2020); 1: all.
    pub top_p: f64,
    /// Only tokens of at least this share of the highest probability; 0: all.
    pub min_p: f64,
    /// What the positive logits of tokens that were there before are divided by, and the negative ones multiplied (Keskar
    /// et al., 2019); 1: nothing.
    pub repetition_penalty: f64,
    /// What is taken from the logits of tokens that were made before, after the prompt, as in OpenAI's API; 0: nothing.
    pub presence_penalty: f64,
    /// What is taken from the logit of a token for each time that it was made before, after the prompt; 0: nothing.
    pub frequency_penalty: f64,
    /// How many of the most probable tokens are told with each that is made, at most 20.
    pub alternatives: usize,
    /// The seed of what is drawn, together with the numbers of prompt and token.
    pub seed: u64,
    /// The token that ends a text, if there is one.
    pub end: Option<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            tokens: 200,
            temperature: 0.8,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            alternatives: 0,
            seed: 0,
            end: None,
        }
    }
}

impl Sampling {
    /// The most probable token each time.
    pub fn greedy(tokens: usize) -> Self {
        Self { tokens, temperature: 0.0, ..Self::default() }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// Naming the flag, what was found and what is expected.
    pub fn validate(&self) -> Result<()> {
        let wrong = |flag: &str, found: f64, expected: &str| {
            Err(Error::config(flag, format!("found {found}, expected {expected}")))
        };
        if self.tokens == 0 {
            return wrong("--tokens", 0.0, "at least 1");
        }
        if self.temperature != 0.0 && !(1e-4..=1e4).contains(&self.temperature) {
            return wrong("--temperature", self.temperature, "0, or 0.0001 to 10000");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("--top-p", self.top_p, "above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return wrong("--min-p", self.min_p, "0 to 1");
        }
        if !(1e-4..=1e4).contains(&self.repetition_penalty) {
            let expected = "0.0001 to 10000";
            return wrong("--repetition-penalty", self.repetition_penalty, expected);
        }
        let penalties = [
            ("--presence-penalty", self.presence_penalty),
            ("--frequency-penalty", self.frequency_penalty),
        ];
        if let Some((flag, found)) = penalties.into_iter().find(|(_, x)| !(-2.0..=2.0).contains(x))
        {
            return wrong(flag, found, "-2 to 2");
        }
        if self.alternatives > ALTERNATIVES_MAX {
            let expected = format!("at most {ALTERNATIVES_MAX}");
            return wrong("--alternatives", self.alternatives as f64, &expected);
        }
        Ok(())
    }

    /// What the device is told about the choice of a token of this number, of a text with this key in this place.
    pub(super) fn choice(&self, key: u64, number: usize, place: usize) -> TokenChoice {
        let drawn = Rng::keyed(&[self.seed, key, number as u64]).uniform() as f32;
        TokenChoice {
            temperature: self.temperature as f32,
            top_k: self.top_k.try_into().unwrap_or(u32::MAX),
            top_p: self.top_p as f32,
            min_p: self.min_p as f32,
            repetition_penalty: self.repetition_penalty as f32,
            // Rounding must not make it 1.
            drawn: drawn.min(1.0f32.next_down()),
            presence_penalty: self.presence_penalty as f32,
            frequency_penalty: self.frequency_penalty as f32,
            alternatives: self.alternatives as u32,
            place: place as u32,
            is_first: u32::from(number == 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_key_and_number_decide_what_is_drawn() {
        let drawn = |seed, key, number| {
            let sampling = Sampling { seed, ..Sampling::default() };
            sampling.choice(key, number, 0).drawn
        };
        assert_eq!(drawn(1, 0, 0), drawn(1, 0, 0));
        let all = [drawn(1, 0, 0), drawn(2, 0, 0), drawn(1, 1, 0), drawn(1, 0, 1)];
        assert!((1..4).all(|i| all[..i].iter().all(|&other| other != all[i])), "{all:?}");
        assert!(all.iter().all(|drawn| (0.0..1.0).contains(drawn)));
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let plain = Sampling::default();
        let refused = |sampling: Sampling| sampling.validate().expect_err("refused").to_string();
        assert!(refused(Sampling { tokens: 0, ..plain }).contains("--tokens"));
        assert!(refused(Sampling { temperature: -1.0, ..plain }).contains("--temperature"));
        assert!(refused(Sampling { temperature: f64::NAN, ..plain }).contains("--temperature"));
        assert!(refused(Sampling { temperature: 1e-39, ..plain }).contains("--temperature"));
        assert!(refused(Sampling { top_p: 0.0, ..plain }).contains("--top-p"));
        assert!(refused(Sampling { min_p: 1.5, ..plain }).contains("--min-p"));
        assert!(
            refused(Sampling { repetition_penalty: 0.0, ..plain }).contains("--repetition-penalty")
        );
        let presence = Sampling { presence_penalty: -2.1, ..plain };
        assert!(
            refused(presence).ends_with("--presence-penalty: found -2.1, expected -2 to 2"),
            "{}",
            refused(presence)
        );
        let frequency = Sampling { frequency_penalty: f64::NAN, ..plain };
        assert!(refused(frequency).contains("--frequency-penalty: found NaN"));
        let alternatives = Sampling { alternatives: 21, ..plain };
        assert!(refused(alternatives).contains("--alternatives: found 21, expected at most 20"));
        let most =
            Sampling { presence_penalty: -2.0, frequency_penalty: 2.0, alternatives: 20, ..plain };
        assert!(most.validate().is_ok());
        assert!(plain.validate().is_ok() && Sampling::greedy(1).validate().is_ok());
    }
}
