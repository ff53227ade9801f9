//! Which token follows, from the logits of a model: each row on its own.

use bytemuck::cast_slice;
use rayon::prelude::*;

use super::call::{Call, ScratchLen};
use super::parallel::{max, sum, vectorized};
use super::real::Real;
use crate::graph::choice::{ALTERNATIVES_MAX, CHOICE_LEN, CHOSEN_LEN, TokenChoice};

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let (vocabulary, width) = (call.shape(0)[1], call.shape(1)[1]);
    let [chosen, counts] = [call.out(0), call.out(1)];
    let all =
        call.real(0).par_chunks_exact(vocabulary).zip(call.indices(1).par_chunks_exact(width));
    let counted = &*counts;
    all.zip(chosen.par_chunks_exact_mut(CHOSEN_LEN)).for_each(|((logits, choice), chosen)| {
        let (choice, seen) = choice.split_at(CHOICE_LEN);
        let before =
            Before { seen, counts: counts_of(&cast_slice(choice)[0], counted, vocabulary) };
        choose(logits, cast_slice(choice)[0], before, &mut call.scratch.thread(), chosen);
    });
    for (choice, chosen) in call.indices(1).chunks_exact(width).zip(chosen.chunks_exact(CHOSEN_LEN))
    {
        count(&cast_slice(&choice[..CHOICE_LEN])[0], chosen[0], counts, vocabulary);
    }
}

/// What was there before a choice.
#[derive(Clone, Copy)]
struct Before<'a, T> {
    /// A bit for each token that the text has.
    seen: &'a [u32],
    /// How often each token was made, if that matters and any was.
    counts: Option<&'a [T]>,
}

/// The counts that a choice depends on, if it does.
fn counts_of<'a, T>(choice: &TokenChoice, counts: &'a [T], vocabulary: usize) -> Option<&'a [T]> {
    let depends = choice.counts() && choice.is_first == 0;
    depends.then(|| counts.chunks_exact(vocabulary).nth(choice.place as usize)).flatten()
}

/// Counts the token that follows, where the choice counts any.
fn count<T: Real>(choice: &TokenChoice, token: T, counts: &mut [T], vocabulary: usize) {
    let counts = counts.chunks_exact_mut(vocabulary).nth(choice.place as usize);
    let Some(counts) = counts.filter(|_| choice.counts() && token >= T::ZERO) else { return };
    if choice.is_first != 0 {
        counts.fill(T::ZERO);
    }
    // A token that was chosen is one of them.
    let token: f64 = token.into();
    if let Some(count) = counts.get_mut(token as usize) {
        *count += T::ONE;
    }
}

/// Weights of all tokens for each thread, and as many to be put in order.
pub(super) fn scratch_len(logits: &[usize]) -> ScratchLen {
    ScratchLen { thread: 2 * logits[1], shared: 0 }
}

/// Tells the token and the logarithm of its probability, and as much of others, as
/// [`Op::ChooseToken`](crate::graph::op::Op::ChooseToken) says.
fn choose<T: Real>(
    logits: &[T],
    choice: TokenChoice,
    before: Before<'_, T>,
    scratch: &mut [T],
    chosen: &mut [T],
) {
    chosen.chunks_exact_mut(2).for_each(|told| told.copy_from_slice(&[T::of(-1.0), T::ZERO]));
    if !logits.iter().all(|logit| logit.is_finite()) {
        return;
    }
    let (weights, order) = scratch[..2 * logits.len()].split_at_mut(logits.len());
    weights.copy_from_slice(logits);
    if choice.repetition_penalty != 1.0 {
        penalise(weights, before.seen, T::of(choice.repetition_penalty.into()));
    }
    if let Some(counts) = before.counts {
        let [presence, frequency] =
            [choice.presence_penalty, choice.frequency_penalty].map(|x| T::of(x.into()));
        for (weight, &count) in
            weights.iter_mut().zip(counts).filter(|(_, count)| **count > T::ZERO)
        {
            *weight -= presence + frequency * count;
        }
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
    let mut most = [0; ALTERNATIVES_MAX];
    let most = &mut most[..ALTERNATIVES_MAX.min(choice.alternatives as usize).min(logits.len())];
    most_probable(logits, most);
    for (told, token) in chosen.chunks_exact_mut(2).zip(std::iter::once(&token).chain(&*most)) {
        told.copy_from_slice(&[T::of(*token as f64), logits[*token] - peak - all.ln()]);
    }
}

/// The first of all tokens by their logits, of equal ones those that come before the others; there are at least as many.
fn most_probable<T: Real>(logits: &[T], most: &mut [usize]) {
    let mut len = 0;
    for (token, &logit) in logits.iter().enumerate() {
        if most.get(len).is_none() && most.last().is_none_or(|&last| logit <= logits[last]) {
            continue;
        }
        let at = most[..len].partition_point(|&other| logits[other] >= logit);
        len = most.len().min(len + 1);
        most[at..len].rotate_right(1);
        most[at] = token;
    }
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

    fn told(choice: TokenChoice, logits: &[f64], before: Before<'_, f64>) -> Vec<f64> {
        let mut scratch = vec![f64::NAN; 2 * logits.len()];
        let mut told = vec![f64::NAN; CHOSEN_LEN];
        choose(logits, choice, before, &mut scratch, &mut told);
        told
    }

    fn chosen(choice: TokenChoice, logits: &[f64], seen: &[u32]) -> (usize, f64) {
        let told = told(choice, logits, Before { seen, counts: None });
        (told[0] as usize, told[1])
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
            let all = TokenChoice { alternatives: 2, ..plain() };
            let told = told(all, &[0.0, wrong], Before { seen: &[], counts: None });
            assert!(told.chunks(2).all(|told| told == [-1.0, 0.0]), "{told:?}");
        }
    }

    #[test]
    fn the_most_probable_tokens_are_those_that_sorting_finds() {
        // Few values, so that many are equal.
        let logits: Vec<f64> = (0..97).map(|i| f64::from(i * 31 % 97 % 7) - 3.0).collect();
        let total = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
        let mut order: Vec<usize> = (0..97).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        for asked in [0, 1, 2, 7, ALTERNATIVES_MAX, 1000] {
            // Neither the settings nor what was there before matter.
            let choice = TokenChoice {
                temperature: 2.0,
                top_k: 3,
                repetition_penalty: 9.0,
                presence_penalty: 1.5,
                alternatives: asked as u32,
                ..plain()
            };
            let before = Before { seen: &[u32::MAX, 1], counts: Some(&[3.0; 97]) };
            let told = told(choice, &logits, before);
            let asked = asked.min(ALTERNATIVES_MAX);
            for (told, &token) in told[2..].chunks(2).zip(&order[..asked]) {
                assert_eq!(told[0], token as f64);
                assert!((told[1] - (logits[token] - total)).abs() < 1e-12, "{told:?}");
            }
            assert!(told[2 + 2 * asked..].chunks(2).all(|told| told == [-1.0, 0.0]));
        }
        let all = TokenChoice { alternatives: 5, ..plain() };
        let few = told(all, &[1.0, 2.0, 2.0], Before { seen: &[], counts: None });
        assert_eq!([few[2], few[4], few[6], few[8]], [1.0, 2.0, 0.0, -1.0]);
    }

    #[test]
    fn what_was_made_before_is_penalised_by_how_often() {
        let logits = [3.0, 2.0, 1.0];
        let first = |presence_penalty, frequency_penalty, counts| {
            let choice =
                TokenChoice { presence_penalty, frequency_penalty, ..TokenChoice::default() };
            told(choice, &logits, Before { seen: &[7], counts })[0]
        };
        let counts = Some(&[4.0, 1.0, 0.0][..]);
        assert_eq!(first(1.5, 0.0, None), 0.0);
        assert_eq!(first(1.5, 0.0, counts), 0.0);
        assert_eq!(first(0.0, 0.4, counts), 1.0);
        assert_eq!(first(1.1, 0.6, counts), 2.0);
        assert_eq!(first(-1.0, -1.0, Some(&[0.0, 0.0, 1.0])), 0.0);
        assert_eq!(first(-1.0, -1.5, Some(&[0.0, 0.0, 1.0])), 2.0);
        // The repetition penalty comes first, and the probability that is told is the model's.
        let both = TokenChoice {
            repetition_penalty: 2.0,
            frequency_penalty: 0.6,
            ..TokenChoice::default()
        };
        // 1.5 - 0.6 is less than 1, but (3 - 0.6) / 2 is not.
        let told =
            told(both, &[3.0, 0.0, 1.0], Before { seen: &[1], counts: Some(&[1.0, 0.0, 0.0]) });
        let total = (1f64.exp() + 3f64.exp() + 1.0).ln();
        assert_eq!(told[0], 2.0);
        assert!((told[1] - (1.0 - total)).abs() < 1e-12, "{told:?}");
    }

    #[test]
    fn what_follows_is_counted_where_it_matters() {
        let counting = TokenChoice { place: 1, presence_penalty: 0.5, ..TokenChoice::default() };
        let mut counts = [9.0; 6];
        count(&TokenChoice { is_first: 1, ..counting }, 2.0, &mut counts, 3);
        assert_eq!(counts, [9.0, 9.0, 9.0, 0.0, 0.0, 1.0]);
        count(&counting, 2.0, &mut counts, 3);
        count(&counting, 0.0, &mut counts, 3);
        let expected = [9.0, 9.0, 9.0, 1.0, 0.0, 2.0];
        assert_eq!(counts, expected);
        // Neither what is none, nor what nobody asked to be counted, nor a place that is not there.
        count(&counting, -1.0, &mut counts, 3);
        count(&TokenChoice { presence_penalty: 0.0, is_first: 1, ..counting }, 1.0, &mut counts, 3);
        count(&TokenChoice { place: 2, ..counting }, 1.0, &mut counts, 3);
        assert_eq!(counts, expected);
        assert_eq!(counts_of(&counting, &counts, 3), Some(&expected[3..]));
        assert_eq!(counts_of(&TokenChoice { is_first: 1, ..counting }, &counts, 3), None);
        assert_eq!(counts_of(&TokenChoice { place: 2, ..counting }, &counts, 3), None);
    }
}
