//! Attention to keys and values that were kept, with padding, for kernels whose lanes share a row and for those that do
//! not.

use inflight::batch::DType;
use inflight::graph::Arena;
use inflight::graph::op::Op;

use crate::bench::Bench;
use crate::{header, normal};

/// Sequences, heads, heads of keys, features of a head, rows of the cache, and the position and sequence of each row.
fn cases() -> Vec<([usize; 5], Vec<(u32, u32)>)> {
    vec![
        ([1, 1, 1, 1, 1], vec![(0, 0)]),
        ([1, 3, 3, 16, 70], vec![(69, 0)]),
        ([2, 2, 2, 5, 200], vec![(130, 0), (u32::MAX, 1)]),
        ([3, 2, 2, 8, 5], vec![(0, 2), (1, 2), (2, 2), (3, 0), (4, 0), (5, 0), (0, 1)]),
        ([1, 2, 2, 4, 64], (0..65).map(|position| (position, 0)).collect()),
        ([2, 6, 2, 5, 90], vec![(80, 1), (81, 1), (3, 0), (u32::MAX, 0)]),
        // Long enough for llvmpipe to end the loops of a single invocation.
        ([2, 1, 1, 64, 1024], vec![(1000, 1)]),
    ]
}

#[test]
fn cached_attention() {
    for ([n, heads, kv_heads, len, capacity], places) in cases() {
        let (d, kept, rows) = (heads * len, 2 * kv_heads * len, places.len());
        let mut bench = Bench::new(1, header(1));
        let qkv = bench.f32(&[rows, d + kept], &normal(1, rows * (d + kept)));
        let (positions, sequences): (Vec<u32>, Vec<u32>) = places.into_iter().unzip();
        let places = bench.u32(&[2, rows], &[positions, sequences].concat());
        let y = bench.output(&[rows, d]);
        let cache = normal(2, n * capacity * kept);
        let cache = bench.in_out_at(Arena::State, &[n, capacity, kept], &cache);
        bench.push(Op::CachedAttention { heads, kv_heads }, &[qkv, places], &[y, cache]);
        bench.check(1e-5, 1e-5);
    }
}

/// A cache of 16 bits, from which the second operation reads what the first one kept.
#[test]
fn cached_attention_in_16_bits() {
    let [n, heads, kv_heads, len, capacity] = [2, 4, 2, 6, 70];
    let (d, kept, rows) = (heads * len, 2 * kv_heads * len, 66);
    let mut bench = Bench::new(1, header(1));
    let cache = bench.between(&[n, capacity, kept], DType::F16);
    let places: Vec<u32> = (0..rows as u32).chain(vec![1; rows]).collect();
    let places = bench.u32(&[2, rows], &places);
    for key in [1, 2] {
        let qkv = bench.f32(&[rows, d + kept], &normal(key, rows * (d + kept)));
        let y = bench.output(&[rows, d]);
        bench.push(Op::CachedAttention { heads, kv_heads }, &[qkv, places], &[y, cache]);
    }
    bench.check(2e-3, 2e-3);
}
