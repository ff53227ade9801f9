//! Which token follows, from the logits of a model: each row on its own.

use bytemuck::cast_slice;
use rayon::prelude::*;

use super::call::{Call, ScratchLen};
use super::parallel::{max, sum, vectorized};
use super::real::Real;
use crate::graph::choice::{CHOICE_LEN, TokenChoice};

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let (vocabulary, width) = (call.shape(0)[1], call.shape(1)[1]);
    let logits = call.real(0).par_chunks_exact(vocabulary);
    let choices = call.indices(1).par_chunks_exact(width);
    let chosen = call.out(0).par_chunks_exact_mut(2);
    logits.zip(choices).zip(chosen).for_each(|((logits, choice), chosen)| {
        let (choice, seen) = choice.split_at(CHOICE_LEN);
        let choice: TokenChoice = cast_slice(choice)[0];
        let scratch = &mut call.scratch.thread();
        let (token, log_probability) = choose(logits, choice, seen, scratch);
        chosen.copy_from_slice(&[token, log_probability]);
    });
}

/// Weights of all tokens for each thread, and as many to be put in order.
pub(super) fn scratch_len(logits: &[usize]) -> ScratchLen {
    ScratchLen { thread: 2 * logits[1], shared: 0 }
}

/// The token and the logarithm of its probability, as [`Op::ChooseToken`](crate::graph::op::Op::ChooseToken) says.
fn choose<T: Real>(logits: &[T], choice: TokenChoice, seen: &[u32], scratch: &mut [T]) -> (T, T) {
    if !logits.iter().all(|logit| logit.is_finite()) {
        return (T::of(-1.0), T::ZERO);
    }
    let (weights, order) = scratch[..2 * logits.len()].split_at_mut(logits.len());
    weights.copy_from_slice(logits);
    if choice.repetition_penalty != 1.0 {
        penalise(weights, seen, T::of(choice.repetition_penalty.into()));
    }
    let token = match choice.temperature {
        0.0 => first(weights, max(weights)),
        temperature => {
            let temperature = T::of(temperature.into());
            weights.iter_mut().for_each(|weight| *weight = *weight / temperature);
            limit(weights, order, choice);
            draw(weights, T::of(choice.drawn.into()))
        }
    };
    let peak = max(logits);
    let all = powers(logits, peak, order);
    (T::of(token as f64), logits[token] - peak - all.ln())
}

/// exp(x − peak) of all x, and their sum.
fn powers<T: Real>(x: &[T], peak: T, y: &mut [T]) -> T {
    vectorized(
        #[inline(always)]
        || {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - peak).exp());
            sum(y, |y| y)
        },
    )
}

/// Makes tokens that were there before less probable.
fn penalise<T: Real>(logits: &mut [T], seen: &[u32], penalty: T) {
    for (word, &bits) in seen.iter().enumerate() {
        let mut bits = bits;
        while bits != 0 {
            let token = 32 * word + bits.trailing_zeros() as usize;
            if let Some(logit) = logits.get_mut(token) {
                *logit = if *logit > T::ZERO { *logit / penalty } else { *logit * penalty };
            }
            bits &= bits - 1;
        }
    }
}

/// Turns logits into weights, of which the highest is 1 and those that the choice leaves out are 0.
fn limit<T: Real>(weights: &mut [T], order: &mut [T], choice: TokenChoice) {
    let mut least = T::NEG_INFINITY;
    let descending = |a: &T, b: &T| b.partial_cmp(a).unwrap_or(std::cmp::Ordering::Equal);
    let top_k = choice.top_k as usize;
    let mut left = order.len();
    if (1..weights.len()).contains(&top_k) {
        order.copy_from_slice(weights);
        let (_, kth, _) = order.select_nth_unstable_by(top_k - 1, descending);
        least = *kth;
        left = top_k;
    }
    let peak = max(weights);
    if choice.top_p < 1.0 {
        if left == order.len() {
            order.copy_from_slice(weights);
        } else {
            // All that equal the last one stay as well.
            left = 0;
            for &weight in weights.iter().filter(|&&weight| weight >= least) {
                order[left] = weight;
                left += 1;
            }
        }
        let order = &mut order[..left];
        order.sort_unstable_by(descending);
        let among = order.iter().map(|&x| (x - peak).exp()).sum::<T>();
        let enough = T::of(choice.top_p.into()) * among;
        let mut before = T::ZERO;
        for &x in &*order {
            if before >= enough {
                break;
            }
            least = x;
            before += (x - peak).exp();
        }
    }
    let min_p = T::of(choice.min_p.into());
    for weight in weights {
        let power = (*weight - peak).exp();
        *weight = if *weight >= least && power >= min_p { power } else { T::ZERO };
    }
}

/// The token at share `drawn` of all weights, in the order of tokens.
fn draw<T: Real>(weights: &[T], drawn: T) -> usize {
    let mut left = drawn * weights.iter().copied().sum::<T>();
    for (token, &weight) in weights.iter().enumerate() {
        if weight > T::ZERO && left < weight {
            return token;
        }
        left -= weight;
    }
    // Rounding may leave the end of the last one to nobody.
    first(weights, max(weights))
}

fn first<T: Real>(x: &[T], wanted: T) -> usize {
    x.iter().position(|&x| x == wanted).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities 0.5, 0.25, 0.125, 0.125.
    const LOGITS: [f64; 4] = [1.386_294_361_119_890_6, std::f64::consts::LN_2, 0.0, 0.0];

    fn plain() -> TokenChoice {
        TokenChoice { temperature: 1.0, ..TokenChoice::default() }
    }

    fn chosen(choice: TokenChoice, logits: &[f64], seen: &[u32]) -> (usize, f64) {
        let mut scratch = vec![f64::NAN; 2 * logits.len()];
        let (token, log_probability) = choose(logits, choice, seen, &mut scratch);
        (token as usize, log_probability)
    }

    /// The share of all draws that each token gets, by draws at even distances.
    fn shares(choice: TokenChoice, logits: &[f64]) -> Vec<f64> {
        const DRAWS: usize = 4096;
        let mut shares = vec![0.0; logits.len()];
        for draw in 0..DRAWS {
            let drawn = (draw as f32 + 0.5) / DRAWS as f32;
            shares[chosen(TokenChoice { drawn, ..choice }, logits, &[]).0] += 1.0 / DRAWS as f64;
        }
        shares
    }

    #[track_caller]
    fn expect(found: &[f64], expected: [f64; 4]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-3, "{found} for {expected}");
            assert_eq!(*found == 0.0, expected == 0.0);
        }
    }

    #[test]
    fn tokens_come_as_often_as_they_are_probable() {
        expect(&shares(plain(), &LOGITS), [0.5, 0.25, 0.125, 0.125]);
        // At half the temperature probabilities are squared: 16, 4, 1, 1.
        let cooler = TokenChoice { temperature: 0.5, ..plain() };
        expect(&shares(cooler, &LOGITS), [16.0 / 22.0, 4.0 / 22.0, 1.0 / 22.0, 1.0 / 22.0]);
    }

    #[test]
    fn limits_leave_out_what_they_say() {
        let top_k = |top_k| shares(TokenChoice { top_k, ..plain() }, &LOGITS);
        expect(&top_k(1), [1.0, 0.0, 0.0, 0.0]);
        expect(&top_k(2), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        // All that equal the last one stay.
        expect(&top_k(3), [0.5, 0.25, 0.125, 0.125]);
        expect(&top_k(9), [0.5, 0.25, 0.125, 0.125]);
        let top_p = |top_p| shares(TokenChoice { top_p, ..plain() }, &LOGITS);
        expect(&top_p(0.1), [1.0, 0.0, 0.0, 0.0]);
        expect(&top_p(0.6), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        expect(&top_p(0.8), [0.5, 0.25, 0.125, 0.125]);
        let min_p = |min_p| shares(TokenChoice { min_p, ..plain() }, &LOGITS);
        expect(&min_p(0.4), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
        expect(&min_p(1.0), [1.0, 0.0, 0.0, 0.0]);
        // Of the two that top-k leaves, the first has two thirds.
        let both = |top_p| shares(TokenChoice { top_k: 2, top_p, ..plain() }, &LOGITS);
        expect(&both(0.66), [1.0, 0.0, 0.0, 0.0]);
        expect(&both(0.67), [2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0]);
    }

    #[test]
    fn greedy_takes_the_first_maximum_and_tells_its_probability() {
        let greedy = TokenChoice::default();
        let two = 2f64.ln();
        let (token, log_probability) = chosen(greedy, &[0.0, two, two], &[]);
        assert_eq!(token, 1);
        assert!((log_probability - 0.4f64.ln()).abs() < 1e-12, "{log_probability}");
        // The probability is the model's, whatever the settings.
        let hot = TokenChoice { temperature: 3.0, top_k: 1, drawn: 0.99, ..greedy };
        assert_eq!(chosen(hot, &[0.0, two + 0.1, two], &[]).0, 1);
        let (_, again) = chosen(TokenChoice { temperature: 3.0, top_k: 1, ..greedy }, &LOGITS, &[]);
        assert!((again - 0.5f64.ln()).abs() < 1e-12, "{again}");
    }

    #[test]
    fn what_was_there_before_is_penalised() {
        let greedy = TokenChoice { repetition_penalty: 2.0, ..TokenChoice::default() };
        assert_eq!(chosen(greedy, &[3.0, 2.0], &[0]).0, 0);
        assert_eq!(chosen(greedy, &[3.0, 2.0], &[1]).0, 1);
        assert_eq!(chosen(greedy, &[-1.0, -1.5], &[1]).0, 1);
        let mut logits = vec![0.0; 40];
        (logits[0], logits[39]) = (2.0, 3.0);
        assert_eq!(chosen(greedy, &logits, &[0, 1 << 6]).0, 39);
        assert_eq!(chosen(greedy, &logits, &[0, 1 << 7]).0, 0);
    }

    #[test]
    fn what_is_not_finite_chooses_nothing() {
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut scratch = vec![0.0; 4];
            let (token, _) = choose(&[0.0, wrong], plain(), &[], &mut scratch);
            assert_eq!(token, -1.0);
        }
    }
}
