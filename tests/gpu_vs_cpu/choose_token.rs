//! The choice of tokens, with each limit alone and all together, for vocabularies below and beyond a workgroup; what is told
//! of it, and counted.

use bytemuck::cast_slice;
use inflight::graph::Arena;
use inflight::graph::choice::{CHOICE_LEN, CHOSEN_LEN, TokenChoice};
use inflight::graph::op::Op;
use inflight::testing::assert_close;

use crate::bench::Bench;
use crate::{header, normal};

/// Choices that differ in what limits them.
fn choices() -> Vec<TokenChoice> {
    let plain = TokenChoice { temperature: 1.0, ..TokenChoice::default() };
    vec![
        TokenChoice::default(),
        TokenChoice { repetition_penalty: 1.5, ..TokenChoice::default() },
        plain,
        TokenChoice { temperature: 0.6, ..plain },
        TokenChoice { top_k: 1, ..plain },
        TokenChoice { top_k: 5, ..plain },
        TokenChoice { top_k: 100_000, ..plain },
        TokenChoice { top_p: 0.1, ..plain },
        TokenChoice { top_p: 0.9, ..plain },
        TokenChoice { min_p: 0.2, ..plain },
        TokenChoice { repetition_penalty: 3.0, ..plain },
        TokenChoice { presence_penalty: 2.0, ..TokenChoice::default() },
        TokenChoice { frequency_penalty: -1.5, ..TokenChoice::default() },
        TokenChoice { presence_penalty: -0.5, frequency_penalty: 1.0, ..plain },
        TokenChoice {
            temperature: 1.5,
            top_k: 20,
            top_p: 0.8,
            min_p: 0.05,
            repetition_penalty: 1.2,
            presence_penalty: 0.3,
            frequency_penalty: 0.7,
            ..plain
        },
    ]
}

/// Choices of every kind with draws all over, for as many rows; each has counts of its own and tells another number of
/// alternatives.
fn rows(vocabulary: usize, logits: &[f32]) -> Bench {
    rows_of(&choices(), vocabulary, logits)
}

/// As [`rows`], of certain kinds.
fn rows_of(kinds: &[TokenChoice], vocabulary: usize, logits: &[f32]) -> Bench {
    let words = vocabulary.div_ceil(32);
    let rows = logits.len() / vocabulary;
    let mut choices: Vec<u32> = Vec::new();
    for row in 0..rows {
        let choice = TokenChoice {
            drawn: (row as f32 * 0.618_034).fract(),
            alternatives: [0, 1, 20, 5, 21][row % 5],
            // Backwards, so that it is not the row's own number.
            place: (rows - 1 - row) as u32,
            is_first: u32::from(row % 3 == 1),
            ..kinds[row % kinds.len()]
        };
        choices.extend(cast_slice::<_, u32>(&[choice]));
        choices.extend((0..words as u32).map(|word| 0x9e37_79b9_u32.wrapping_mul(word + 1)));
    }
    let mut bench = Bench::new(1, header(1));
    let logits = bench.f32(&[rows, vocabulary], logits);
    let choices = bench.u32(&[rows, CHOICE_LEN + words], &choices);
    let chosen = bench.output(&[rows, CHOSEN_LEN]);
    let counts: Vec<f32> =
        (0..rows * vocabulary).map(|i| (i * 7 % 11).saturating_sub(6) as f32).collect();
    let counts = bench.in_out_at(Arena::State, &[rows, vocabulary], &counts);
    bench.push(Op::ChooseToken, &[logits, choices], &[chosen, counts]);
    bench
}

#[test]
fn choose_token() {
    for vocabulary in [1, 2, 31, 33, 256, 257, 1000, 50_257] {
        let rounds = if vocabulary > 1000 { 1 } else { 5 };
        let rows_len = rounds * choices().len();
        let mut logits = normal(vocabulary as u64, rows_len * vocabulary);
        logits.iter_mut().for_each(|logit| *logit *= 3.0);
        rows(vocabulary, &logits).check(1e-5, 1e-5);
    }
}

#[test]
fn of_equal_tokens_all_are_within_a_limit_and_the_first_is_the_most_probable() {
    let kinds = choices().len();
    rows(40, &vec![0.25; 3 * kinds * 40]).check(1e-5, 1e-5);
    // Of four values many tokens have each, some the least that there is.
    let values = [0.5, -0.0, 0.0, f32::MIN];
    let logits: Vec<f32> = (0..3 * kinds * 600).map(|i| values[i * i % 601 % 4]).collect();
    rows(600, &logits).check(1e-5, 1e-5);
    // Those that an invocation goes over alone are equal, so that it has several to tell.
    let logits: Vec<f32> = (0..3 * kinds * 600).map(|i| -((i % 600 % 256 / 4) as f32)).collect();
    rows(600, &logits).check(1e-5, 1e-5);
}

/// On a software adapter an invocation would go over its tokens for longer than it may, if there were as few as elsewhere.
#[test]
fn a_large_vocabulary_is_gone_over_to_its_end() {
    const VOCABULARY: usize = 260_003;
    // All limits leave few tokens: of many, sums in another order lead to a draw of another one.
    let kinds = &choices()[choices().len() - 1..];
    let bench = rows_of(kinds, VOCABULARY, &normal(3, 5 * VOCABULARY));
    for (gpu, cpu) in bench.on_gpu().iter().flatten().zip(&bench.on_cpu()) {
        assert_close(gpu, cpu, 1e-5, 1e-5);
    }
}

#[test]
fn a_choice_from_what_is_not_finite_is_none() {
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let kinds = choices().len();
        let mut logits = normal(1, kinds * 300);
        logits.iter_mut().skip(299).step_by(300).for_each(|logit| *logit = wrong);
        rows(300, &logits).check(0.0, 0.0);
    }
}
