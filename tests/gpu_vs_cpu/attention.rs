//! Attention, with tokens and features of a head around the sides of tiles and of four; rotary positions and the starts of
//! documents, which come before it.

use inflight::batch::DType;
use inflight::graph::op::{Attending, Op};

use crate::bench::Bench;
use crate::{below, header, normal};

/// Samples, tokens, and features of a head, with how tokens attend. Heads of the last are so wide that 32 KiB of workgroup
/// memory hold only narrower tiles for the gradient. Few, since each takes seven pipelines, and as many again for 16 bits.
fn cases() -> Vec<([usize; 3], Attending)> {
    let new = Attending::new;
    vec![
        ([1, 1, 1], new(1, false)),
        ([2, 33, 8], new(3, true)),
        ([1, 65, 13], new(2, false)),
        ([2, 18, 72], new(1, true)),
        ([2, 37, 6], Attending { kv_heads: 2, ..new(6, true) }),
        ([1, 100, 5], Attending { documents: true, ..new(2, true) }),
        ([2, 35, 4], Attending { dropout: 0.3, salt: 77, ..new(2, false) }),
        (
            [2, 70, 4],
            Attending { kv_heads: 2, documents: true, dropout: 0.2, salt: 3, ..new(4, true) },
        ),
    ]
}

/// The first token that each attends to, of documents of several lengths, the first of which are cut.
fn starts([n, t]: [usize; 2]) -> Vec<u32> {
    let mut starts = Vec::new();
    for sample in 0..n {
        let mut start = 0;
        let ends = below(8 + sample as u64, 20, t);
        for (i, end) in ends.into_iter().enumerate() {
            starts.push(start);
            // One of them reaches over several tiles.
            if end == 0 && i > 45 || i == 40 || i == 2 + sample {
                start = i as u32 + 1;
            }
        }
    }
    starts
}

/// Runs an attention and its gradient, which reads what the attention wrote.
fn attention([n, t, len]: [usize; 3], how: Attending) -> Bench {
    let (d, row) = (how.heads * len, (how.heads + 2 * how.kv_heads) * len);
    let mut bench = Bench::new(1, header(1));
    let dy = bench.f32(&[n, t, d], &normal(1, n * t * d));
    let qkv = bench.f32(&[n, t, row], &normal(2, n * t * row));
    let given: Vec<_> = [(3, n * t * d), (4, n * how.heads * t)]
        .into_iter()
        .map(|(key, len)| normal(key, len))
        .collect();
    let mut masks = Vec::new();
    if how.documents {
        masks.push(bench.u32(&[n, t], &starts([n, t])));
    }
    if how.dropout > 0.0 {
        masks.push(bench.header());
    }
    let y = bench.output(&[n, t, d]);
    let lse = bench.output(&[n, how.heads, t]);
    bench.push(Op::Attention(how), &[&[qkv], &masks[..]].concat(), &[y, lse]);
    // The gradient of other results than its own, too large ones of which would overflow.
    let y = bench.f32(&[n, t, d], &given[0]);
    let lse = bench.f32(&[n, how.heads, t], &given[1].iter().map(|x| x + 6.0).collect::<Vec<_>>());
    let dqkv = bench.output(&[n, t, row]);
    let inputs = [&[dy, qkv, y, lse], &masks[..]].concat();
    bench.push(Op::AttentionGrad(how), &inputs, &[dqkv]);
    bench
}

/// llvmpipe ends all loops of an invocation after 65,535 turns together.
#[test]
fn attention_over_many_keys() {
    attention([1, 560, 64], Attending::new(1, true)).check(1e-3, 1e-4);
}

#[test]
fn attention_and_its_gradient() {
    for (case, how) in cases() {
        attention(case, how).check(1e-3, 1e-4);
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    for (case, how) in cases().into_iter().skip(1).step_by(6) {
        let bench = attention(case, how);
        let bits = |results: Vec<Vec<Vec<f32>>>| -> Vec<u32> {
            results.into_iter().flatten().flatten().map(f32::to_bits).collect()
        };
        assert_eq!(bits(bench.on_both()), bits(bench.on_both()));
    }
}

#[test]
fn rotary_and_its_gradient() {
    // Samples, tokens, heads, heads of keys, features of a head, rows of the table.
    for [n, t, heads, kv_heads, len, rows] in
        [[1, 1, 1, 1, 2, 1], [2, 33, 4, 2, 6, 40], [3, 7, 3, 1, 16, 5]]
    {
        for given in [false, true] {
            let (q_len, k_len) = (heads * len, kv_heads * len);
            let mut bench = Bench::new(1, header(1));
            let mut tensor = |key, width| bench.f32(&[n, t, width], &normal(key, n * t * width));
            let [q, k, v, dy] = [(1, q_len), (2, k_len), (3, k_len), (4, q_len + 2 * k_len)]
                .map(|(key, w)| tensor(key, w));
            let table = bench.f32(&[rows, len], &normal(5, rows * len));
            let mut angles = vec![table];
            if given {
                // Some are beyond the table.
                angles.push(bench.u32(&[n, t], &below(6, rows as u64 + 3, n * t)));
            }
            let qkv = bench.output(&[n, t, q_len + 2 * k_len]);
            bench.push(
                Op::Rotary { positions: given },
                &[&[q, k, v], &angles[..]].concat(),
                &[qkv],
            );
            let outputs = [q_len, k_len, k_len].map(|width| bench.output(&[n, t, width]));
            let inputs = [&[dy], &angles[..]].concat();
            bench.push(Op::RotaryGrad { positions: given }, &inputs, &outputs);
            bench.check(1e-6, 1e-6);
        }
    }
}

/// Starts and places are whole numbers, which show as rows of a table.
#[test]
fn document_starts() {
    for [n, t] in [[1, 1], [3, 21], [2, 64], [1, 200]] {
        for dtype in [DType::U8, DType::U16, DType::U32] {
            let mut bench = Bench::new(1, header(1));
            let ids = below(1, 7, n * t);
            let ids = match dtype {
                DType::U8 => bench.u8(&[n, t], &ids.iter().map(|&x| x as u8).collect::<Vec<_>>()),
                DType::U16 => {
                    bench.u16(&[n, t], &ids.iter().map(|&x| x as u16).collect::<Vec<_>>())
                }
                _ => bench.u32(&[n, t], &ids),
            };
            let table = bench.f32(&[t, 1], &normal(2, t));
            let found = [(); 2].map(|()| bench.between(&[n, t], DType::U32));
            bench.push(Op::DocumentStarts { end: 5 }, &[ids], &found);
            for numbers in found {
                let y = bench.output(&[n, t, 1]);
                bench.push(Op::Embedding, &[numbers, table], &[y]);
            }
            bench.check(0.0, 0.0);
        }
    }
}
