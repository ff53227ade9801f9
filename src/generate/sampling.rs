//! Which token follows: from the logits of a model to one of them.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::rng::Rng;

/// How tokens are drawn. What limits the choice applies in this order: the repetition penalty, the temperature, top-k,
/// top-p, min-p; as in Hugging Face's `generate`.
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
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong("--temperature", self.temperature, "a finite number of at least 0");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("--top-p", self.top_p, "above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return wrong("--min-p", self.min_p, "0 to 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            let expected = "a finite number above 0";
            return wrong("--repetition-penalty", self.repetition_penalty, expected);
        }
        Ok(())
    }

    /// The token that follows, and the logarithm of its probability to the model as it is, whatever the settings.
    /// `seen` are the tokens before; `key` the numbers of prompt and token.
    ///
    /// # Errors
    /// When a logit is not finite.
    pub(super) fn choose(&self, logits: &[f32], seen: &[u32], key: [u64; 2]) -> Result<(u32, f64)> {
        if let Some(token) = logits.iter().position(|logit| !logit.is_finite()) {
            let message = format!("found logit {}, expected a finite number", logits[token]);
            let item = format!("token {token}");
            return Err(Error::new(Stage::Compute, ErrorKind::Diverged, item, message)
                .hint("weights of a training that did not diverge"));
        }
        let mut candidates: Vec<(u32, f64)> =
            (0..).zip(logits.iter().map(|&logit| f64::from(logit))).collect();
        if self.repetition_penalty != 1.0 {
            penalise(&mut candidates, seen, self.repetition_penalty);
        }
        let token = match self.temperature {
            0.0 => highest(&candidates),
            temperature => {
                candidates.iter_mut().for_each(|(_, logit)| *logit /= temperature);
                self.draw(candidates, Rng::keyed(&[self.seed, key[0], key[1]]).uniform())
            }
        };
        Ok((token, log_probability(logits, token)))
    }

    /// The token at share `drawn` of the probability of those that are left.
    fn draw(&self, mut candidates: Vec<(u32, f64)>, drawn: f64) -> u32 {
        let sorts = (1..candidates.len()).contains(&self.top_k) || self.top_p < 1.0;
        if sorts {
            // Equal ones stay in the order of their numbers.
            candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
        }
        if self.top_k > 0 {
            candidates.truncate(self.top_k);
        }
        let peak = candidates.iter().fold(f64::NEG_INFINITY, |peak, c| peak.max(c.1));
        candidates.iter_mut().for_each(|(_, logit)| *logit = (*logit - peak).exp());
        if self.top_p < 1.0 {
            let total: f64 = candidates.iter().map(|c| c.1).sum();
            let mut before = 0.0;
            // The first one stays whatever its probability.
            candidates.retain(|(_, power)| {
                let stays = before < self.top_p * total;
                before += power;
                stays
            });
        }
        // The highest power is 1.
        candidates.retain(|(_, power)| *power >= self.min_p);
        let total: f64 = candidates.iter().map(|c| c.1).sum();
        let mut left = drawn * total;
        for (token, power) in &candidates {
            left -= power;
            if left < 0.0 {
                return *token;
            }
        }
        highest(&candidates)
    }
}

/// Makes tokens that were there before less probable.
fn penalise(candidates: &mut [(u32, f64)], seen: &[u32], penalty: f64) {
    let mut seen = seen.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for token in seen {
        if let Some((_, logit)) = candidates.get_mut(token as usize) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
}

/// The first of the highest.
fn highest(candidates: &[(u32, f64)]) -> u32 {
    let mut best = (0, f64::NEG_INFINITY);
    for &(token, logit) in candidates {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0
}

fn log_probability(logits: &[f32], token: u32) -> f64 {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&logit| f64::from(logit - peak).exp()).sum();
    f64::from(logits[token as usize] - peak) - total.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities 0.5, 0.25, 0.125, 0.125.
    fn logits() -> Vec<f32> {
        [4.0f32, 2.0, 1.0, 1.0].map(f32::ln).to_vec()
    }

    /// How often each token is drawn.
    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        const DRAWS: u64 = 8000;
        let mut counts = vec![0.0; logits.len()];
        for draw in 0..DRAWS {
            let (token, _) = sampling.choose(logits, &[], [3, draw]).expect("finite");
            counts[token as usize] += 1.0 / DRAWS as f64;
        }
        counts
    }

    fn plain() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::default() }
    }

    #[track_caller]
    fn expect(found: &[f64], expected: [f64; 4]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 0.02, "{found} for {expected}");
            assert_eq!(*found == 0.0, expected == 0.0);
        }
    }

    #[test]
    fn tokens_come_as_often_as_they_are_probable() {
        expect(&shares(plain(), &logits()), [0.5, 0.25, 0.125, 0.125]);
        // At half the temperature probabilities are squared: 16, 4, 1, 1.
        let cooler = Sampling { temperature: 0.5, ..plain() };
        expect(&shares(cooler, &logits()), [16.0 / 22.0, 4.0 / 22.0, 1.0 / 22.0, 1.0 / 22.0]);
    }

    #[test]
    fn limits_leave_out_what_they_say() {
        let top_k = |top_k| shares(Sampling { top_k, ..plain() }, &logits());
        expect(&top_k(1), [1.0, 0.0, 0.0, 0.0]);
        // Of equals the first.
        expect(&top_k(3), [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.0]);
        let top_p = |top_p| shares(Sampling { top_p, ..plain() }, &logits());
        expect(&top_p(0.1), [1.0, 0.0, 0.0, 0.0]);
        expect(&top_p(0.6), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        expect(&top_p(0.8), [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.0]);
        let min_p = |min_p| shares(Sampling { min_p, ..plain() }, &logits());
        expect(&min_p(0.4), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        expect(&min_p(1.0), [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn greedy_takes_the_first_maximum_and_tells_its_probability() {
        let (token, log_probability) =
            Sampling::greedy(1).choose(&[0.0, 2f32.ln(), 2f32.ln()], &[], [0, 0]).expect("finite");
        assert_eq!(token, 1);
        assert!((log_probability - 0.4f64.ln()).abs() < 1e-6, "{log_probability}");
    }

    #[test]
    fn what_was_there_before_is_penalised_once() {
        let greedy = Sampling { repetition_penalty: 2.0, ..Sampling::greedy(1) };
        let choose =
            |logits: &[f32], seen: &[u32]| greedy.choose(logits, seen, [0, 0]).expect("finite").0;
        assert_eq!(choose(&[3.0, 2.0], &[]), 0);
        assert_eq!(choose(&[3.0, 2.0], &[0, 0, 0]), 1);
        // A second division by 2 would make it less than 1.4.
        assert_eq!(choose(&[3.0, 1.4], &[0, 0]), 0);
        assert_eq!(choose(&[-1.0, -1.5], &[0]), 1);
    }

    #[test]
    fn the_key_decides() {
        let draws = |seed, prompt| -> Vec<u32> {
            let sampling = Sampling { seed, ..plain() };
            (0..30)
                .map(|i| sampling.choose(&logits(), &[], [prompt, i]).expect("finite").0)
                .collect()
        };
        assert_eq!(draws(1, 0), draws(1, 0));
        assert!(draws(1, 0) != draws(2, 0) && draws(1, 0) != draws(1, 1));
    }

    #[test]
    fn what_is_not_finite_or_out_of_range_is_refused() {
        let error = plain().choose(&[0.0, f32::NAN], &[], [0, 0]).expect_err("refused");
        assert_eq!(error.kind().exit_code(), 5);
        assert!(error.to_string().contains("token 1: found logit NaN"), "{error}");
        let refused = |sampling: Sampling| sampling.validate().expect_err("refused").to_string();
        assert!(refused(Sampling { tokens: 0, ..plain() }).contains("--tokens"));
        assert!(refused(Sampling { temperature: -1.0, ..plain() }).contains("--temperature"));
        assert!(refused(Sampling { top_p: 0.0, ..plain() }).contains("--top-p"));
        assert!(refused(Sampling { min_p: 1.5, ..plain() }).contains("--min-p"));
        assert!(refused(Sampling { repetition_penalty: 0.0, ..plain() }).contains("--repetition"));
    }
}
