//! Attention of new tokens to those before them, whose keys and values were kept.
//!
//! Pairs of sample and head go to threads: of a single sequence that is made there are no others.

use rayon::prelude::*;

use super::attention::{BLOCK, product, softmax};
use super::call::{Call, ScratchLen};
use super::gemm::{Matrix, Write, gemm};
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let Op::CachedAttention { heads, kv_heads } = *call.op else {
        unreachable!("dispatched by family")
    };
    let (tokens, cache) = (call.shape(0)[1], call.out_shape(1));
    let (capacity, kept) = (cache[1], cache[2]);
    let shape = Shape { tokens, len: kept / (2 * kv_heads), heads, kv_heads, capacity };
    let (qkv, positions) = (call.real(0), call.indices(1));
    let [y, cache] = [call.out(0), call.out(1)];
    let samples = cache.par_chunks_mut(capacity * kept).zip(qkv.par_chunks(shape.qkv_len()));
    samples.zip(positions.par_chunks(tokens)).for_each(|((cache, qkv), positions)| {
        shape.keep(qkv, positions, cache);
    });
    let cache = &*cache;
    let attend = |pair: usize, y: &mut [T]| {
        let (sample, head) = (pair / heads, pair % heads);
        let qkv = &qkv[sample * shape.qkv_len()..][..shape.qkv_len()];
        let positions = &positions[sample * tokens..][..tokens];
        let cache = &cache[sample * capacity * kept..][..capacity * kept];
        shape.attend(head, qkv, positions, cache, y, &mut call.scratch.thread());
    };
    let pair_len = tokens * shape.len;
    if tokens == 1 {
        return y.par_chunks_mut(pair_len).enumerate().for_each(|(pair, y)| attend(pair, y));
    }
    // The heads of a token lie side by side, so that those of several tokens are first made apart.
    let mut apart = call.scratch.shared();
    let apart = &mut apart[..y.len()];
    apart.par_chunks_mut(pair_len).enumerate().for_each(|(pair, y)| attend(pair, y));
    let apart = &*apart;
    y.par_chunks_mut(heads * shape.len).enumerate().for_each(|(row, y)| {
        let (sample, token) = (row / tokens, row % tokens);
        for (head, y) in y.chunks_mut(shape.len).enumerate() {
            let at = (sample * heads + head) * pair_len + token * shape.len;
            y.copy_from_slice(&apart[at..at + shape.len]);
        }
    });
}

/// A block of weights for each thread, and where there are several tokens the result with heads apart, from the shapes of
/// that and the cache.
pub(super) fn scratch_len(y: &[usize], cache: &[usize]) -> ScratchLen {
    let shared = if y[1] == 1 { 0 } else { y.iter().product() };
    ScratchLen { thread: BLOCK.min(y[1]) * cache[1], shared }
}

/// The attention of one sample.
#[derive(Clone, Copy)]
struct Shape {
    tokens: usize,
    /// Features of a head.
    len: usize,
    heads: usize,
    kv_heads: usize,
    /// Rows of the cache.
    capacity: usize,
}

impl Shape {
    /// Features of a row of queries, keys and values.
    fn row_len(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.len
    }

    /// Numbers of a sample's queries, keys and values.
    fn qkv_len(&self) -> usize {
        self.tokens * self.row_len()
    }

    /// Keeps keys and values of all tokens but padding.
    fn keep<T: Real>(&self, qkv: &[T], positions: &[u32], cache: &mut [T]) {
        for (qkv, &position) in qkv.chunks(self.row_len()).zip(positions) {
            let row_len = 2 * self.kv_heads * self.len;
            if let Some(row) = cache.chunks_mut(row_len).nth(position as usize) {
                row.copy_from_slice(&qkv[self.heads * self.len..]);
            }
        }
    }

    /// What one head says: `y[tokens, len]`.
    fn attend<T: Real>(
        &self,
        head: usize,
        qkv: &[T],
        positions: &[u32],
        cache: &[T],
        y: &mut [T],
        scratch: &mut [T],
    ) {
        y.fill(T::ZERO);
        let len = self.len;
        let scale = T::of(1.0 / (len as f64).sqrt());
        let visible = |position: u32| match position as usize {
            position if position < self.capacity => position + 1,
            _ => 0,
        };
        let shared = head / (self.heads / self.kv_heads);
        let q = Matrix::new(qkv, self.tokens, self.row_len()).column_range(head * len, len);
        let cache = Matrix::new(cache, self.capacity, 2 * self.kv_heads * len);
        let k = cache.column_range(shared * len, len);
        let v = cache.column_range((self.kv_heads + shared) * len, len);
        for first in (0..self.tokens).step_by(BLOCK) {
            let count = BLOCK.min(self.tokens - first);
            let positions = &positions[first..first + count];
            let keys = positions.iter().map(|&position| visible(position)).max().unwrap_or(0);
            if keys == 0 {
                continue;
            }
            let weights = &mut scratch[..count * keys];
            let k = k.row_range(0, keys).transposed();
            gemm(q.row_range(first, count), k, weights, Write::Replace);
            for (&position, row) in positions.iter().zip(weights.chunks_mut(keys)) {
                let (row, masked) = row.split_at_mut(visible(position));
                masked.fill(T::ZERO);
                if !row.is_empty() {
                    softmax(row, scale);
                }
            }
            let weights = Matrix::new(weights, count, keys);
            product(weights, v.row_range(0, keys), &mut y[first * len..], len, Write::Replace);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::array;

    use super::*;
    use crate::batch::StepHeader;
    use crate::cpu::call::{Input, MAX_BINDINGS, Output, Scratch};
    use crate::cpu::testing::{convert, in_pools, run_op};
    use crate::graph::op::Attending;
    use crate::testing::{assert_close, normal};

    /// Runs the operation over `qkv[n, t, (heads + 2 kv_heads) · len]`, changing `cache`.
    fn step<T: Real>(
        qkv: &[f64],
        positions: &[u32],
        cache: &mut [T],
        [n, t, heads, kv_heads, len, capacity]: [usize; 6],
    ) -> Vec<T> {
        let (d, kept) = (heads * len, 2 * kv_heads * len);
        let op = Op::CachedAttention { heads, kv_heads };
        let inputs = [vec![n, t, d + kept], vec![n, t]];
        let outputs = [vec![n, t, d], vec![n, capacity, kept]];
        let qkv = convert::<T>(qkv);
        let mut y = vec![T::of(0.5); n * t * d];
        let scratch_len = scratch_len(&outputs[0], &outputs[1]);
        let scratch = Scratch::filled(scratch_len, rayon::current_num_threads(), T::of(f64::NAN));
        let header = StepHeader::default();
        let mut bound: [Output<'_, T>; MAX_BINDINGS] = Default::default();
        (bound[0], bound[1]) = (Output::Real(&mut y), Output::Real(cache));
        crate::cpu::run(Call {
            op: &op,
            inputs: array::from_fn(|i| match i {
                0 => Input::Real(&qkv),
                1 => Input::Index(positions),
                _ => Input::None,
            }),
            outputs: bound,
            input_shapes: &inputs,
            output_shapes: &outputs,
            header: &header,
            scratch: &scratch,
        });
        y
    }

    #[test]
    fn in_pieces_it_is_causal_attention_of_the_whole() {
        for [heads, kv_heads, len] in [[3, 3, 4], [6, 2, 3]] {
            let t = 70;
            let row = (heads + 2 * kv_heads) * len;
            let qkv = normal(1, t * row);
            let shapes = [vec![1, t, heads * len], vec![1, heads, t]];
            let op = Op::Attention(Attending { kv_heads, ..Attending::new(heads, true) });
            let whole = run_op::<f64>(op, &[&qkv], &[vec![1, t, row]], &shapes).remove(0);
            // A long beginning, then tokens one at a time, then several at once.
            let pieces = [0..65, 65..66, 66..67, 67..70];
            let mut cache = vec![f64::NAN; t * 2 * kv_heads * len];
            let mut found = Vec::new();
            for piece in pieces {
                let positions: Vec<u32> = piece.clone().map(|token| token as u32).collect();
                let case = [1, piece.len(), heads, kv_heads, len, t];
                let qkv = &qkv[piece.start * row..piece.end * row];
                found.extend(step(qkv, &positions, &mut cache, case));
            }
            assert_close(&found, &whole, 1e-12, 1e-12);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        for tokens in [1, 66] {
            let [n, heads, kv_heads, len, capacity] = [2, 6, 3, 5, 80];
            let (row, kept) = ((heads + 2 * kv_heads) * len, 2 * kv_heads * len);
            let qkv = normal(1, n * tokens * row);
            let positions: Vec<u32> = (0..n * tokens).map(|i| 7 + (i % tokens) as u32).collect();
            in_pools(|| {
                let mut cache = convert::<f32>(&normal(2, n * capacity * kept));
                let case = [n, tokens, heads, kv_heads, len, capacity];
                step(&qkv, &positions, &mut cache, case)
            });
        }
    }

    #[test]
    fn samples_have_caches_of_their_own_and_padding_leaves_them_alone() {
        let case @ [n, t, heads, kv_heads, len, capacity] = [2, 3, 2, 2, 5, 4];
        let d = heads * len;
        let qkv = normal(1, n * t * 3 * d);
        let mut cache = convert::<f32>(&normal(2, n * capacity * 2 * d));
        let before = cache.clone();
        // The first sample goes on at position 2; its last token is padding. The second one is idle.
        let positions = [2, 3, 4, u32::MAX, 4, 9];
        let y = step(&qkv, &positions, &mut cache, case);
        assert!(y[..2 * d].iter().all(|&y| y != 0.5 && y.is_finite()));
        assert!(y[2 * d..].iter().all(|&y| y == 0.0));
        let changed: Vec<usize> =
            (0..n * capacity).filter(|&row| cache[row * 2 * d] != before[row * 2 * d]).collect();
        assert_eq!(changed, [2, 3]);
        let kept: Vec<f32> = convert(&qkv[d..3 * d]);
        assert_eq!(cache[2 * 2 * d..3 * 2 * d], kept);
        // The one before the last saw three rows: what lies behind them does not show.
        let mut other = before.clone();
        other[3 * 2 * d..].fill(9.0);
        let again = step(
            &qkv[..3 * d],
            &[2],
            &mut other[..capacity * 2 * d],
            [1, 1, heads, kv_heads, len, capacity],
        );
        assert_close(&again, &y[..d].iter().map(|&y| f64::from(y)).collect::<Vec<_>>(), 1e-6, 1e-6);
    }
}
