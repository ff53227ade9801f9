//! Attention, with tokens and features of a head around the sides of tiles and of four.

use inflight::graph::op::Op;

use crate::bench::Bench;
use crate::{header, normal};

/// Samples, tokens, heads, features of a head, and whether a token attends only to those up to itself. Heads
/// of the last are so wide that 32 KiB of workgroup memory hold only narrower tiles for the gradient. Few,
/// since each takes seven pipelines, and as many again for 16 bits.
const CASES: [([usize; 4], bool); 4] =
    [([1, 1, 1, 1], false), ([2, 33, 3, 8], true), ([1, 65, 2, 13], false), ([2, 18, 1, 72], true)];

/// Runs an attention and its gradient, which reads what the attention wrote.
fn attention(case: [usize; 4], causal: bool) -> Bench {
    let [n, t, heads, len] = case;
    let d = heads * len;
    let mut bench = Bench::new(1, header(1));
    let dy = bench.f32(&[n, t, d], &normal(1, n * t * d));
    let qkv = bench.f32(&[n, t, 3 * d], &normal(2, 3 * n * t * d));
    let given: Vec<_> = [(3, n * t * d), (4, n * heads * t)]
        .into_iter()
        .map(|(key, len)| normal(key, len))
        .collect();
    let y = bench.output(&[n, t, d]);
    let lse = bench.output(&[n, heads, t]);
    bench.push(Op::Attention { heads, causal }, &[qkv], &[y, lse]);
    // The gradient of other results than its own, too large ones of which would overflow.
    let y = bench.f32(&[n, t, d], &given[0]);
    let lse = bench.f32(&[n, heads, t], &given[1].iter().map(|x| x + 6.0).collect::<Vec<_>>());
    let dqkv = bench.output(&[n, t, 3 * d]);
    bench.push(Op::AttentionGrad { heads, causal }, &[dy, qkv, y, lse], &[dqkv]);
    bench
}

/// llvmpipe ends all loops of an invocation after 65,535 turns together.
#[test]
fn attention_over_many_keys() {
    attention([1, 560, 1, 64], true).check(1e-3, 1e-4);
}

#[test]
fn attention_and_its_gradient() {
    for (case, causal) in CASES {
        attention(case, causal).check(1e-3, 1e-4);
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    let bench = attention([2, 33, 3, 8], true);
    let bits = |results: Vec<Vec<Vec<f32>>>| -> Vec<u32> {
        results.into_iter().flatten().flatten().map(f32::to_bits).collect()
    };
    assert_eq!(bits(bench.on_both()), bits(bench.on_both()));
}
