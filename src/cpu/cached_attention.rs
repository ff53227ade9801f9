//! Attention of new tokens to those before them, whose keys and values were kept.
//!
//! Rows that follow each other in one sequence make a piece, of at most [`BLOCK`]; the heads of all pieces go to threads.

use std::ops::Range;

use rayon::prelude::*;

use super::attention::{BLOCK, softmax};
use super::call::{Call, ScratchLen};
use super::gemm::{Matrix, Write, gemm};
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let Op::CachedAttention { heads, kv_heads } = *call.op else {
        unreachable!("dispatched by family")
    };
    let ([rows, width], cache) = ([0, 1].map(|axis| call.out_shape(0)[axis]), call.out_shape(1));
    let shape = Shape { len: width / heads, heads, kv_heads, capacity: cache[1] };
    let (positions, sequences) = call.indices(1).split_at(rows);
    let [y, cache] = [call.out(0), call.out(1)];
    let qkv = call.real(0);
    let half = call.half_outputs.contains(&1);
    shape.keep(qkv, positions, sequences, cache, half);
    let cache = &*cache;
    let mut parts = call.scratch.shared();
    let pieces = shape.pieces(positions, sequences);
    let mut tasks = Vec::with_capacity(pieces.len() * heads);
    let mut rest = &mut parts[..];
    for piece in &pieces {
        for head in 0..heads {
            let (part, others) = rest.split_at_mut(piece.rows.len() * shape.len);
            rest = others;
            tasks.push((piece, head, part));
        }
    }
    tasks.into_par_iter().for_each(|(piece, head, part)| {
        let cache = &cache[piece.sequence * shape.capacity * shape.kept()..];
        let positions = &positions[piece.rows.clone()];
        let qkv = &qkv[shape.row_len() * piece.rows.start..shape.row_len() * piece.rows.end];
        shape.attend(qkv, positions, cache, head, part, &mut call.scratch.thread());
    });
    y.fill(T::ZERO);
    let mut parts = &parts[..];
    for piece in &pieces {
        let len = shape.len;
        let (part, others) = parts.split_at(piece.rows.len() * width);
        parts = others;
        let y = &mut y[width * piece.rows.start..width * piece.rows.end];
        for (i, y) in y.chunks_exact_mut(len).enumerate() {
            let (row, head) = (i / heads, i % heads);
            y.copy_from_slice(&part[(head * piece.rows.len() + row) * len..][..len]);
        }
    }
}

/// A block of weights for each thread, and a second y with the features of a head together, from the shapes of y and the
/// cache.
pub(super) fn scratch_len(y: &[usize], cache: &[usize]) -> ScratchLen {
    ScratchLen { thread: BLOCK.min(y[0]) * cache[1], shared: y.iter().product() }
}

/// Rows that follow each other in one sequence.
struct Piece {
    rows: Range<usize>,
    sequence: usize,
}

#[derive(Clone, Copy)]
struct Shape {
    /// Features of a head.
    len: usize,
    heads: usize,
    kv_heads: usize,
    /// Rows of the cache of a sequence.
    capacity: usize,
}

impl Shape {
    /// Features of a row of the cache.
    fn kept(&self) -> usize {
        2 * self.kv_heads * self.len
    }

    /// Features of a row of queries, keys and values.
    fn row_len(&self) -> usize {
        self.heads * self.len + self.kept()
    }

    /// Keeps keys and values of all tokens but padding.
    fn keep<T: Real>(
        &self,
        qkv: &[T],
        positions: &[u32],
        sequences: &[u32],
        cache: &mut [T],
        half: bool,
    ) {
        let places = positions.iter().zip(sequences);
        for (qkv, (&position, &sequence)) in qkv.chunks(self.row_len()).zip(places) {
            if (position as usize) < self.capacity {
                let row = sequence as usize * self.capacity + position as usize;
                let kept = &mut cache[row * self.kept()..][..self.kept()];
                kept.copy_from_slice(&qkv[self.heads * self.len..]);
                if half {
                    T::round_to_half(kept);
                }
            }
        }
    }

    /// All rows but padding.
    fn pieces(&self, positions: &[u32], sequences: &[u32]) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        for (row, (&position, &sequence)) in positions.iter().zip(sequences).enumerate() {
            if position as usize >= self.capacity {
                continue;
            }
            let sequence = sequence as usize;
            match pieces.last_mut() {
                Some(last)
                    if last.sequence == sequence
                        && last.rows.end == row
                        && last.rows.len() < BLOCK =>
                {
                    last.rows.end += 1;
                }
                _ => pieces.push(Piece { rows: row..row + 1, sequence }),
            }
        }
        pieces
    }

    /// What one head of a piece sees: `y[rows, len]`.
    fn attend<T: Real>(
        &self,
        qkv: &[T],
        positions: &[u32],
        cache: &[T],
        head: usize,
        y: &mut [T],
        scratch: &mut [T],
    ) {
        let len = self.len;
        let scale = T::of(1.0 / (len as f64).sqrt());
        let count = positions.len();
        let keys = positions.iter().max().map_or(0, |&position| position as usize + 1);
        let shared = head / (self.heads / self.kv_heads);
        let q = Matrix::new(qkv, count, self.row_len()).column_range(head * len, len);
        let cache = Matrix::new(cache, self.capacity, self.kept()).row_range(0, keys);
        let k = cache.column_range(shared * len, len);
        let v = cache.column_range((self.kv_heads + shared) * len, len);
        let weights = &mut scratch[..count * keys];
        gemm(q, k.transposed(), weights, Write::Replace);
        for (&position, row) in positions.iter().zip(weights.chunks_mut(keys)) {
            let (row, masked) = row.split_at_mut(position as usize + 1);
            masked.fill(T::ZERO);
            softmax(row, scale);
        }
        gemm(Matrix::new(weights, count, keys), v, y, Write::Replace);
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

    /// Runs the operation over `qkv[rows, (heads + 2 kv_heads) · len]`, changing `cache`; `places` are positions, then
    /// sequences.
    fn step<T: Real>(
        qkv: &[f64],
        places: &[u32],
        cache: &mut [T],
        [n, heads, kv_heads, len, capacity]: [usize; 5],
    ) -> Vec<T> {
        let (d, kept, rows) = (heads * len, 2 * kv_heads * len, places.len() / 2);
        let op = Op::CachedAttention { heads, kv_heads };
        let inputs = [vec![rows, d + kept], vec![2, rows]];
        let outputs = [vec![rows, d], vec![n, capacity, kept]];
        let qkv = convert::<T>(qkv);
        let mut y = vec![T::of(0.5); rows * d];
        let scratch_len = scratch_len(&outputs[0], &outputs[1]);
        let scratch = Scratch::filled(scratch_len, rayon::current_num_threads(), T::of(f64::NAN));
        let header = StepHeader::default();
        let mut bound: [Output<'_, T>; MAX_BINDINGS] = Default::default();
        (bound[0], bound[1]) = (Output::Real(&mut y), Output::Real(cache));
        crate::cpu::run(Call {
            op: &op,
            inputs: array::from_fn(|i| match i {
                0 => Input::Real(&qkv),
                1 => Input::Index(places),
                _ => Input::None,
            }),
            outputs: bound,
            input_shapes: &inputs,
            output_shapes: &outputs,
            header: &header,
            scratch: &scratch,
            half_outputs: &[],
        });
        y
    }

    #[test]
    fn in_pieces_and_mixed_with_others_it_is_causal_attention_of_the_whole() {
        for [heads, kv_heads, len] in [[3, 3, 4], [6, 2, 3]] {
            let (t, d, kept) = (70, heads * len, 2 * kv_heads * len);
            let row = d + kept;
            let qkv = normal(1, 2 * t * row);
            let shapes = [vec![2, t, d], vec![2, heads, t]];
            let op = Op::Attention(Attending { kv_heads, ..Attending::new(heads, true) });
            let whole = run_op::<f64>(op, &[&qkv], &[vec![2, t, row]], &shapes).remove(0);
            // A long beginning, then tokens one at a time, then several at once, of two sequences by turns.
            let pieces = [0..65, 65..66, 66..67, 67..70];
            let mut cache = vec![f64::NAN; 2 * t * kept];
            let mut found = [Vec::new(), Vec::new()];
            for piece in pieces {
                // The second sequence comes first, and padding stands between the two.
                let of = |sequence: usize| {
                    &qkv[(sequence * t + piece.start) * row..][..piece.len() * row]
                };
                let rows = [of(1), &vec![7.0; row], of(0)].concat();
                let at: Vec<u32> = piece.clone().map(|token| token as u32).collect();
                let positions = [&at[..], &[u32::MAX], &at].concat();
                let sequences = [vec![1; piece.len()], vec![0], vec![0; piece.len()]].concat();
                let places = [positions, sequences].concat();
                let y = step(&rows, &places, &mut cache, [2, heads, kv_heads, len, t]);
                let (second, rest) = y.split_at(piece.len() * d);
                assert!(rest[..d].iter().all(|&y| y == 0.0));
                found[0].extend_from_slice(&rest[d..]);
                found[1].extend_from_slice(second);
            }
            assert_close(&found.concat(), &whole, 1e-12, 1e-12);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let [n, heads, kv_heads, len, capacity] = [2, 6, 3, 5, 80];
        let (row, kept) = ((heads + 2 * kv_heads) * len, 2 * kv_heads * len);
        for rows in [1, 66] {
            let qkv = normal(1, rows * row);
            let mut places: Vec<u32> = (0..rows).map(|i| 7 + i as u32).collect();
            places.extend((0..rows).map(|i| u32::from(i > 40)));
            in_pools(|| {
                let mut cache = convert::<f32>(&normal(2, n * capacity * kept));
                step(&qkv, &places, &mut cache, [n, heads, kv_heads, len, capacity])
            });
        }
    }

    #[test]
    fn sequences_have_caches_of_their_own_and_padding_leaves_them_alone() {
        let case @ [n, heads, kv_heads, len, capacity] = [2, 2, 2, 5, 4];
        let d = heads * len;
        let qkv = normal(1, 6 * 3 * d);
        let mut cache = convert::<f32>(&normal(2, n * capacity * 2 * d));
        let before = cache.clone();
        // The second sequence goes on at position 2; its last token is padding, as is all that follows.
        let places = [2, 3, 4, u32::MAX, 4, 9, 1, 1, 1, 0, 0, 0];
        let y = step(&qkv, &places, &mut cache, case);
        assert!(y[..2 * d].iter().all(|&y| y != 0.5 && y.is_finite()));
        assert!(y[2 * d..].iter().all(|&y| y == 0.0));
        let changed: Vec<usize> =
            (0..n * capacity).filter(|&row| cache[row * 2 * d] != before[row * 2 * d]).collect();
        assert_eq!(changed, [capacity + 2, capacity + 3]);
        let kept: Vec<f32> = convert(&qkv[d..3 * d]);
        assert_eq!(cache[(capacity + 2) * 2 * d..(capacity + 3) * 2 * d], kept);
        // The one before the last saw three rows: what lies behind them does not show.
        let mut other = before[capacity * 2 * d..].to_vec();
        other[3 * 2 * d..].fill(9.0);
        let again = step(&qkv[..3 * d], &[2, 0], &mut other, [1, heads, kv_heads, len, capacity]);
        assert_close(&again, &y[..d].iter().map(|&y| f64::from(y)).collect::<Vec<_>>(), 1e-6, 1e-6);
    }
}
