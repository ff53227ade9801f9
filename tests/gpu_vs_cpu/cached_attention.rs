//! Attention to keys and values that were kept, with padding, for kernels whose lanes share a row and for those that do
//! not.

use inflight::graph::Arena;
use inflight::graph::op::Op;

use crate::bench::Bench;
use crate::{header, normal};

/// Samples, tokens, heads, heads of keys, features of a head, rows of the cache, and the position of each token.
fn cases() -> Vec<([usize; 6], Vec<u32>)> {
    vec![
        ([1, 1, 1, 1, 1, 1], vec![0]),
        ([1, 1, 3, 3, 16, 70], vec![69]),
        ([2, 1, 2, 2, 5, 200], vec![130, u32::MAX]),
        ([2, 3, 2, 2, 8, 5], vec![0, 1, 2, 3, 4, 5]),
        ([1, 65, 2, 2, 4, 64], (0..65).collect()),
        ([2, 2, 6, 2, 5, 90], vec![80, 81, 3, u32::MAX]),
    ]
}

#[test]
fn cached_attention() {
    for ([n, t, heads, kv_heads, len, capacity], positions) in cases() {
        let (d, kept) = (heads * len, 2 * kv_heads * len);
        let mut bench = Bench::new(1, header(1));
        let qkv = bench.f32(&[n, t, d + kept], &normal(1, n * t * (d + kept)));
        let positions = bench.u32(&[n, t], &positions);
        let y = bench.output(&[n, t, d]);
        let cache = normal(2, n * capacity * kept);
        let cache = bench.in_out_at(Arena::State, &[n, capacity, kept], &cache);
        bench.push(Op::CachedAttention { heads, kv_heads }, &[qkv, positions], &[y, cache]);
        bench.check(1e-5, 1e-5);
    }
}
