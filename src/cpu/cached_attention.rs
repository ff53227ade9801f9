//! Attention of new tokens to those before them, whose keys and values were kept.
//!
//! Samples go to threads, each with a cache of its own.

use rayon::prelude::*;

use super::attention::{BLOCK, product, softmax};
use super::call::{Call, ScratchLen};
use super::gemm::{Matrix, Write, gemm};
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let Op::CachedAttention { heads } = *call.op else { unreachable!("dispatched by family") };
    let (qkv, cache) = (call.shape(0), call.out_shape(1));
    let shape = Shape { tokens: qkv[1], width: qkv[2] / 3, heads, capacity: cache[1] };
    let Shape { tokens, width, capacity, .. } = shape;
    let [y, cache] = [call.out(0), call.out(1)];
    let samples = y.par_chunks_mut(tokens * width).zip(cache.par_chunks_mut(2 * capacity * width));
    let samples = samples.zip(call.real(0).par_chunks(3 * tokens * width));
    samples.zip(call.indices(1).par_chunks(tokens)).for_each(|(((y, cache), qkv), positions)| {
        shape.keep(qkv, positions, cache);
        shape.attend(qkv, positions, cache, y, &mut call.scratch.thread());
    });
}

/// A block of weights for each thread, from the shapes of `positions` and the cache.
pub(super) fn scratch_len(positions: &[usize], cache: &[usize]) -> ScratchLen {
    ScratchLen { thread: BLOCK.min(positions[1]) * cache[1], shared: 0 }
}

/// The attention of one sample.
#[derive(Clone, Copy)]
struct Shape {
    tokens: usize,
    /// Features of all heads.
    width: usize,
    heads: usize,
    /// Rows of the cache.
    capacity: usize,
}

impl Shape {
    /// Keeps keys and values of all tokens but padding.
    fn keep<T: Real>(&self, qkv: &[T], positions: &[u32], cache: &mut [T]) {
        let row_len = 2 * self.width;
        for (qkv, &position) in qkv.chunks(3 * self.width).zip(positions) {
            if let Some(row) = cache.chunks_mut(row_len).nth(position as usize) {
                row.copy_from_slice(&qkv[self.width..]);
            }
        }
    }

    fn attend<T: Real>(
        &self,
        qkv: &[T],
        positions: &[u32],
        cache: &[T],
        y: &mut [T],
        scratch: &mut [T],
    ) {
        y.fill(T::ZERO);
        let len = self.width / self.heads;
        let scale = T::of(1.0 / (len as f64).sqrt());
        let visible = |position: u32| match position as usize {
            position if position < self.capacity => position + 1,
            _ => 0,
        };
        for head in 0..self.heads {
            let q = Matrix::new(qkv, self.tokens, 3 * self.width).column_range(head * len, len);
            let cache = Matrix::new(cache, self.capacity, 2 * self.width);
            let k = cache.column_range(head * len, len);
            let v = cache.column_range(self.width + head * len, len);
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
                let y = &mut y[first * self.width + head * len..];
                let weights = Matrix::new(weights, count, keys);
                product(weights, v.row_range(0, keys), y, self.width, Write::Replace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::array;

    use super::*;
    use crate::batch::StepHeader;
    use crate::cpu::call::{Input, MAX_BINDINGS, Output, Scratch};
    use crate::cpu::testing::{convert, run_op};
    use crate::testing::{assert_close, normal};

    /// Runs the operation over `qkv[n, t, 3d]`, changing `cache`.
    fn step<T: Real>(
        qkv: &[f64],
        positions: &[u32],
        cache: &mut [T],
        [n, t, heads, len, capacity]: [usize; 5],
    ) -> Vec<T> {
        let d = heads * len;
        let op = Op::CachedAttention { heads };
        let inputs = [vec![n, t, 3 * d], vec![n, t]];
        let outputs = [vec![n, t, d], vec![n, capacity, 2 * d]];
        let qkv = convert::<T>(qkv);
        let mut y = vec![T::of(0.5); n * t * d];
        let scratch_len = scratch_len(&inputs[1], &outputs[1]);
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

    /// The rows of a few tokens of one sample of `qkv[t, 3d]`.
    fn rows(qkv: &[f64], d: usize, range: std::ops::Range<usize>) -> Vec<f64> {
        qkv[range.start * 3 * d..range.end * 3 * d].to_vec()
    }

    #[test]
    fn in_pieces_it_is_causal_attention_of_the_whole() {
        let ([heads, len], t) = ([3, 4], 70);
        let d = heads * len;
        let qkv = normal(1, t * 3 * d);
        let shapes = [vec![1, t, d], vec![1, heads, t]];
        let op = Op::Attention { heads, causal: true };
        let whole = run_op::<f64>(op, &[&qkv], &[vec![1, t, 3 * d]], &shapes).remove(0);
        // A long beginning, then tokens one at a time, then several at once.
        let pieces = [0..65, 65..66, 66..67, 67..70];
        let mut cache = vec![f64::NAN; t * 2 * d];
        let mut found = Vec::new();
        for piece in pieces {
            let positions: Vec<u32> = piece.clone().map(|token| token as u32).collect();
            let case = [1, piece.len(), heads, len, t];
            found.extend(step(&rows(&qkv, d, piece), &positions, &mut cache, case));
        }
        assert_close(&found, &whole, 1e-12, 1e-12);
    }

    #[test]
    fn samples_have_caches_of_their_own_and_padding_leaves_them_alone() {
        let case @ [n, t, heads, len, capacity] = [2, 3, 2, 5, 4];
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
        let again =
            step(&qkv[..3 * d], &[2], &mut other[..capacity * 2 * d], [1, 1, heads, len, capacity]);
        assert_close(&again, &y[..d].iter().map(|&y| f64::from(y)).collect::<Vec<_>>(), 1e-6, 1e-6);
    }
}
