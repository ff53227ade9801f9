//! Multi-head attention (Vaswani et al., 2017), a block of queries at a time: the weights of a block are made,
//! used and forgotten, and the gradient makes them again from the logarithm of each softmax's sum (Dao, Fu,
//! Ermon, Rudra and Ré, "FlashAttention", 2022).
//!
//! Samples go to threads; the sums over a sample's blocks are taken in their order.

use std::ops::Range;

use rayon::prelude::*;

use super::call::{Call, ScratchLen};
use super::gemm::{Matrix, Write, gemm, gemm_into};
use super::parallel::{sum2, vectorized};
use super::real::Real;
use crate::graph::op::{Attending, Op};
use crate::rng::pcg3d;

/// Queries of a block, at most: with some hundred keys, their weights lie in a core's second cache.
pub(super) const BLOCK: usize = 64;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    match *call.op {
        Op::Attention(how) => {
            let shape = Shape::of(call.shape(0), how);
            let masks = Masks::of(call, how, 1);
            let [y, lse] = [call.out(0), call.out(1)];
            let samples = y.par_chunks_mut(shape.tokens * shape.width());
            let samples = samples.zip(lse.par_chunks_mut(how.heads * shape.tokens));
            let samples = samples.zip(call.real(0).par_chunks(shape.tokens * shape.row_len()));
            samples.enumerate().for_each(|(sample, ((y, lse), qkv))| {
                let sample = Sample { shape, masks, sample };
                sample.forward(qkv, y, lse, &mut call.scratch.thread());
            });
        }
        Op::AttentionGrad(how) => {
            let shape = Shape::of(call.shape(1), how);
            let masks = Masks::of(call, how, 4);
            let [dy, qkv, y, lse] = [0, 1, 2, 3].map(|i| call.real(i));
            let one = shape.tokens * shape.width();
            let inputs = dy.par_chunks(one).zip(y.par_chunks(one));
            let inputs = inputs.zip(lse.par_chunks(how.heads * shape.tokens));
            let rows = shape.tokens * shape.row_len();
            let samples = call.out(0).par_chunks_mut(rows).zip(qkv.par_chunks(rows));
            samples.zip(inputs).enumerate().for_each(|(sample, ((dqkv, qkv), ((dy, y), lse)))| {
                let sample = Sample { shape, masks, sample };
                sample.backward(dy, qkv, y, lse, dqkv, &mut call.scratch.thread());
            });
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// Two blocks of weights for each thread, from the shapes of `qkv` and `lse`.
pub(super) fn scratch_len(qkv: &[usize], lse: &[usize]) -> ScratchLen {
    let tokens = qkv[1].min(lse[2]);
    ScratchLen { thread: 2 * BLOCK.min(tokens) * tokens, shared: 0 }
}

/// What the attentions of all samples have in common.
#[derive(Clone, Copy)]
struct Shape {
    tokens: usize,
    /// Features of a head.
    len: usize,
    how: Attending,
}

/// A part of the rows of `qkv`.
#[derive(Clone, Copy)]
enum Part {
    Queries,
    Keys,
    Values,
}

impl Shape {
    fn of(qkv: &[usize], how: Attending) -> Self {
        Self { tokens: qkv[1], len: qkv[2] / (how.heads + 2 * how.kv_heads), how }
    }

    /// Features of all heads of queries.
    fn width(&self) -> usize {
        self.how.heads * self.len
    }

    /// Features of a row of `qkv`.
    fn row_len(&self) -> usize {
        (self.how.heads + 2 * self.how.kv_heads) * self.len
    }

    /// Factor on the scores.
    fn scale<T: Real>(&self) -> T {
        T::of(1.0 / (self.len as f64).sqrt())
    }

    /// Where the features that a head of queries works with begin in a row of `qkv`.
    fn column(&self, part: Part, head: usize) -> usize {
        let Attending { heads, kv_heads, .. } = self.how;
        let shared = head / self.how.group();
        self.len
            * match part {
                Part::Queries => head,
                Part::Keys => heads + shared,
                Part::Values => heads + kv_heads + shared,
            }
    }

    /// Queries, keys or values of one head: `[tokens, len]`.
    fn part<'a, T: Real>(&self, qkv: &'a [T], part: Part, head: usize) -> Matrix<'a, T> {
        Matrix::new(qkv, self.tokens, self.row_len())
            .column_range(self.column(part, head), self.len)
    }

    /// One head of a tensor of `[tokens, width]`.
    fn head<'a, T: Real>(&self, x: &'a [T], head: usize) -> Matrix<'a, T> {
        Matrix::new(x, self.tokens, self.width()).column_range(head * self.len, self.len)
    }

    /// The tokens in blocks of about the same size.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let tokens = self.tokens;
        let len = tokens.div_ceil(tokens.div_ceil(BLOCK).max(1));
        (0..tokens).step_by(len.max(1)).map(move |first| first..(first + len).min(tokens))
    }

    /// The features of a token and head in a tensor of `[tokens, width]`.
    fn features(&self, token: usize, head: usize) -> Range<usize> {
        let first = token * self.width() + head * self.len;
        first..first + self.len
    }
}

/// What is left out besides what is to come: other documents, and weights that are dropped.
#[derive(Clone, Copy)]
struct Masks<'a> {
    /// The first token that each of all samples sees.
    starts: Option<&'a [u32]>,
    dropout: Option<Dropout>,
}

/// Which weights are dropped, see [`Op::Attention`].
#[derive(Clone, Copy)]
struct Dropout {
    threshold: u32,
    factor: f64,
    step: u32,
    stream: u32,
}

impl<'a> Masks<'a> {
    /// Those of a call whose starts, where there are any, are input `starts`.
    fn of<T: Real>(call: &Call<'_, 'a, T>, how: Attending, starts: usize) -> Self {
        let header = call.header;
        let p = f64::from(how.dropout);
        let dropout = (p > 0.0).then(|| Dropout {
            threshold: (p * 4_294_967_296.0) as u32,
            factor: 1.0 / (1.0 - p),
            step: header.step.wrapping_add(header.seed_high),
            stream: header.seed_low ^ how.salt ^ header.micro_step.wrapping_mul(0x9e37_79b9),
        });
        Self { starts: how.documents.then(|| call.indices(starts)), dropout }
    }
}

/// The attention of one sample.
#[derive(Clone, Copy)]
struct Sample<'a> {
    shape: Shape,
    masks: Masks<'a>,
    sample: usize,
}

impl Sample<'_> {
    /// The first key that a query sees.
    fn first_key(&self, query: usize) -> usize {
        let at = self.sample * self.shape.tokens + query;
        self.masks.starts.map_or(0, |starts| starts[at] as usize)
    }

    /// The keys that the queries of a block see.
    fn keys(&self, queries: &Range<usize>) -> Range<usize> {
        let end = if self.shape.how.causal { queries.end } else { self.shape.tokens };
        self.first_key(queries.start)..end
    }

    /// Which of its block's keys a query sees.
    fn visible(&self, query: usize, keys: &Range<usize>) -> Range<usize> {
        let end = if self.shape.how.causal { query + 1 } else { keys.end };
        self.first_key(query) - keys.start..end - keys.start
    }

    /// Drops weights of a query for the keys from `first` on, or their gradients.
    fn drop<T: Real>(&self, row: &mut [T], head: usize, query: usize, first: usize) {
        let Some(Dropout { threshold, factor, step, stream }) = self.masks.dropout else { return };
        let pair = (self.sample * self.shape.how.heads + head) as u32;
        let stream = stream ^ pair.wrapping_mul(0x85eb_ca6b);
        let number = (query as u32).wrapping_mul(self.shape.tokens as u32);
        let number = number.wrapping_add(first as u32);
        let factor = T::of(factor);
        vectorized(
            #[inline(always)]
            || {
                for (i, x) in row.iter_mut().enumerate() {
                    let hash = pcg3d([number.wrapping_add(i as u32), step, stream])[0];
                    *x = if hash >= threshold { factor * *x } else { T::ZERO };
                }
            },
        );
    }

    fn forward<T: Real>(&self, qkv: &[T], y: &mut [T], lse: &mut [T], scratch: &mut [T]) {
        let shape = self.shape;
        for head in 0..shape.how.heads {
            let [q, k, v] =
                [Part::Queries, Part::Keys, Part::Values].map(|part| shape.part(qkv, part, head));
            for queries in shape.blocks() {
                let (first, count, keys) = (queries.start, queries.len(), self.keys(&queries));
                let weights = &mut scratch[..count * keys.len()];
                let k = k.row_range(keys.start, keys.len()).transposed();
                gemm(q.row_range(first, count), k, weights, Write::Replace);
                for (query, row) in queries.zip(weights.chunks_mut(keys.len())) {
                    let visible = self.visible(query, &keys);
                    row[..visible.start].fill(T::ZERO);
                    row[visible.end..].fill(T::ZERO);
                    let first = keys.start + visible.start;
                    let row = &mut row[visible];
                    lse[head * shape.tokens + query] = softmax(row, shape.scale());
                    self.drop(row, head, query, first);
                }
                let y = &mut y[first * shape.width() + head * shape.len..];
                let weights = Matrix::new(weights, count, keys.len());
                let v = v.row_range(keys.start, keys.len());
                product(weights, v, y, shape.width(), Write::Replace);
            }
        }
    }

    fn backward<T: Real>(
        &self,
        dy: &[T],
        qkv: &[T],
        y: &[T],
        lse: &[T],
        dqkv: &mut [T],
        scratch: &mut [T],
    ) {
        // Heads of queries add to keys and values that they share.
        dqkv.fill(T::ZERO);
        let (shape, row_len) = (self.shape, self.shape.row_len());
        for head in 0..shape.how.heads {
            let [q, k, v] =
                [Part::Queries, Part::Keys, Part::Values].map(|part| shape.part(qkv, part, head));
            let column = |part| shape.column(part, head);
            for queries in shape.blocks() {
                let (first, count, keys) = (queries.start, queries.len(), self.keys(&queries));
                let (weights, rest) = scratch.split_at_mut(count * keys.len());
                let slopes = &mut rest[..count * keys.len()];
                let q = q.row_range(first, count);
                let [k, v] = [k, v].map(|part| part.row_range(keys.start, keys.len()));
                let dy_head = shape.head(dy, head).row_range(first, count);
                gemm(q, k.transposed(), weights, Write::Replace);
                gemm(dy_head, v.transposed(), slopes, Write::Replace);
                for (i, query) in queries.enumerate() {
                    let range = i * keys.len()..(i + 1) * keys.len();
                    let rows = [&mut weights[range.clone()], &mut slopes[range]];
                    let features = shape.features(query, head);
                    let mean = vectorized(
                        #[inline(always)]
                        || sum2(&dy[features.clone()], &y[features], |dy, y| dy * y),
                    );
                    let lse = lse[head * shape.tokens + query];
                    let visible = self.visible(query, &keys);
                    let first = keys.start + visible.start;
                    let [weights, slopes] = rows.map(|row| {
                        row[..visible.start].fill(T::ZERO);
                        row[visible.end..].fill(T::ZERO);
                        &mut row[visible.clone()]
                    });
                    self.drop(slopes, head, query, first);
                    softmax_grad([&mut *weights, slopes], shape.scale(), lse, mean);
                    self.drop(weights, head, query, first);
                }
                let weights = Matrix::new(weights, count, keys.len()).transposed();
                let slopes = Matrix::new(slopes, count, keys.len());
                let dv = &mut dqkv[keys.start * row_len + column(Part::Values)..];
                product(weights, dy_head, dv, row_len, Write::Add);
                let dk = &mut dqkv[keys.start * row_len + column(Part::Keys)..];
                product(slopes.transposed(), q, dk, row_len, Write::Add);
                let dq = &mut dqkv[first * row_len + column(Part::Queries)..];
                product(slopes, k, dq, row_len, Write::Replace);
            }
        }
    }
}

/// Turns scores into weights that sum to 1; returns the logarithm of the sum of their exponentials.
pub(super) fn softmax<T: Real>(row: &mut [T], scale: T) -> T {
    vectorized(
        #[inline(always)]
        || {
            let peak = super::parallel::max(row);
            row.iter_mut().for_each(|x| *x = (scale * (*x - peak)).exp());
            let sum = super::parallel::sum(row, |x| x);
            let factor = T::ONE / sum;
            row.iter_mut().for_each(|x| *x *= factor);
            scale * peak + sum.ln()
        },
    )
}

/// Turns scores and the gradients of the weights into the weights and the gradients of the scores before
/// scaling. `mean` is the sum of weights times their gradients, which is that of y · dy.
fn softmax_grad<T: Real>([weights, slopes]: [&mut [T]; 2], scale: T, lse: T, mean: T) {
    vectorized(
        #[inline(always)]
        || {
            weights.iter_mut().for_each(|x| *x = (scale * *x - lse).exp());
            for (slope, &weight) in slopes.iter_mut().zip(&*weights) {
                *slope = weight * (*slope - mean) * scale;
            }
        },
    );
}

/// A product into rows of `y` that stand `row_stride` elements apart.
pub(super) fn product<T: Real>(
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    y: &mut [T],
    row_stride: usize,
    write: Write,
) {
    let (rows, columns) = (a.rows(), b.columns());
    assert!(
        columns <= row_stride && (rows.max(1) - 1) * row_stride + columns <= y.len(),
        "the result must lie within its tensor"
    );
    // SAFETY: `y` is borrowed exclusively and holds every row of the result.
    unsafe { gemm_into(a, b, y.as_mut_ptr(), row_stride, write) }
}

#[cfg(test)]
mod tests;
