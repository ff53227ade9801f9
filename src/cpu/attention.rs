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
use crate::graph::op::Op;

/// Queries of a block, at most: with some hundred keys, their weights lie in a core's second cache.
pub(super) const BLOCK: usize = 64;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    match *call.op {
        Op::Attention { heads, causal } => {
            let shape = Shape::of(call.shape(0), heads, causal);
            let [y, lse] = [call.out(0), call.out(1)];
            let samples = y.par_chunks_mut(shape.tokens * shape.width);
            let samples = samples.zip(lse.par_chunks_mut(heads * shape.tokens));
            let samples = samples.zip(call.real(0).par_chunks(3 * shape.tokens * shape.width));
            samples.for_each(|((y, lse), qkv)| {
                shape.forward(qkv, y, lse, &mut call.scratch.thread());
            });
        }
        Op::AttentionGrad { heads, causal } => {
            let shape = Shape::of(call.shape(1), heads, causal);
            let [dy, qkv, y, lse] = [0, 1, 2, 3].map(|i| call.real(i));
            let (one, three) = (shape.tokens * shape.width, 3 * shape.tokens * shape.width);
            let inputs = dy.par_chunks(one).zip(y.par_chunks(one));
            let inputs = inputs.zip(lse.par_chunks(heads * shape.tokens));
            let samples = call.out(0).par_chunks_mut(three).zip(qkv.par_chunks(three));
            samples.zip(inputs).for_each(|((dqkv, qkv), ((dy, y), lse))| {
                shape.backward(dy, qkv, y, lse, dqkv, &mut call.scratch.thread());
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

/// The attention of one sample.
#[derive(Clone, Copy)]
struct Shape {
    tokens: usize,
    /// Features of all heads.
    width: usize,
    heads: usize,
    causal: bool,
}

/// A part of the rows of `qkv`.
#[derive(Clone, Copy)]
enum Part {
    Queries,
    Keys,
    Values,
}

impl Shape {
    fn of(qkv: &[usize], heads: usize, causal: bool) -> Self {
        Self { tokens: qkv[1], width: qkv[2] / 3, heads, causal }
    }

    /// Factor on the scores.
    fn scale<T: Real>(&self) -> T {
        T::of(1.0 / ((self.width / self.heads) as f64).sqrt())
    }

    /// Where the features of a head begin in a row of `qkv`.
    fn column(&self, part: Part, head: usize) -> usize {
        part as usize * self.width + head * (self.width / self.heads)
    }

    /// Queries, keys or values of one head: `[tokens, width / heads]`.
    fn part<'a, T: Real>(&self, qkv: &'a [T], part: Part, head: usize) -> Matrix<'a, T> {
        Matrix::new(qkv, self.tokens, 3 * self.width)
            .column_range(self.column(part, head), self.width / self.heads)
    }

    /// One head of a tensor of `[tokens, width]`.
    fn head<'a, T: Real>(&self, x: &'a [T], head: usize) -> Matrix<'a, T> {
        let len = self.width / self.heads;
        Matrix::new(x, self.tokens, self.width).column_range(head * len, len)
    }

    /// The tokens in blocks of about the same size.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let tokens = self.tokens;
        let len = tokens.div_ceil(tokens.div_ceil(BLOCK).max(1));
        (0..tokens).step_by(len.max(1)).map(move |first| first..(first + len).min(tokens))
    }

    /// How many keys the queries of a block see at most: all, or those up to the last of the block.
    fn keys(&self, queries: &Range<usize>) -> usize {
        if self.causal { queries.end } else { self.tokens }
    }

    /// How many of its block's keys a query sees.
    fn visible(&self, query: usize) -> usize {
        if self.causal { query + 1 } else { self.tokens }
    }

    fn forward<T: Real>(&self, qkv: &[T], y: &mut [T], lse: &mut [T], scratch: &mut [T]) {
        for head in 0..self.heads {
            let [q, k, v] =
                [Part::Queries, Part::Keys, Part::Values].map(|part| self.part(qkv, part, head));
            for queries in self.blocks() {
                let (first, count, keys) = (queries.start, queries.len(), self.keys(&queries));
                let weights = &mut scratch[..count * keys];
                let k = k.row_range(0, keys).transposed();
                gemm(q.row_range(first, count), k, weights, Write::Replace);
                for (query, row) in queries.zip(weights.chunks_mut(keys)) {
                    let (row, masked) = row.split_at_mut(self.visible(query));
                    lse[head * self.tokens + query] = softmax(row, self.scale());
                    masked.fill(T::ZERO);
                }
                let y = &mut y[first * self.width + head * (self.width / self.heads)..];
                let weights = Matrix::new(weights, count, keys);
                product(weights, v.row_range(0, keys), y, self.width, Write::Replace);
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
        dqkv.fill(T::ZERO);
        let row_len = 3 * self.width;
        for head in 0..self.heads {
            let [q, k, v] =
                [Part::Queries, Part::Keys, Part::Values].map(|part| self.part(qkv, part, head));
            let column = |part| self.column(part, head);
            for queries in self.blocks() {
                let (first, count, keys) = (queries.start, queries.len(), self.keys(&queries));
                let (weights, rest) = scratch.split_at_mut(count * keys);
                let slopes = &mut rest[..count * keys];
                let q = q.row_range(first, count);
                let (k, v) = (k.row_range(0, keys), v.row_range(0, keys));
                let dy_head = self.head(dy, head).row_range(first, count);
                gemm(q, k.transposed(), weights, Write::Replace);
                gemm(dy_head, v.transposed(), slopes, Write::Replace);
                for (i, query) in queries.enumerate() {
                    let range = i * keys..(i + 1) * keys;
                    let rows = [&mut weights[range.clone()], &mut slopes[range]];
                    let features = self.features(query, head);
                    let mean = vectorized(
                        #[inline(always)]
                        || sum2(&dy[features.clone()], &y[features], |dy, y| dy * y),
                    );
                    let lse = lse[head * self.tokens + query];
                    softmax_grad(rows, self.visible(query), self.scale(), lse, mean);
                }
                let weights = Matrix::new(weights, count, keys).transposed();
                let slopes = Matrix::new(slopes, count, keys);
                let dv = &mut dqkv[column(Part::Values)..];
                product(weights, dy_head, dv, row_len, Write::Add);
                let dk = &mut dqkv[column(Part::Keys)..];
                product(slopes.transposed(), q, dk, row_len, Write::Add);
                let dq = &mut dqkv[first * row_len + column(Part::Queries)..];
                product(slopes, k, dq, row_len, Write::Replace);
            }
        }
    }

    /// The features of a token and head in a tensor of `[tokens, width]`.
    fn features(&self, token: usize, head: usize) -> Range<usize> {
        let len = self.width / self.heads;
        let first = token * self.width + head * len;
        first..first + len
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
fn softmax_grad<T: Real>(
    [weights, slopes]: [&mut [T]; 2],
    visible: usize,
    scale: T,
    lse: T,
    mean: T,
) {
    vectorized(
        #[inline(always)]
        || {
            let (weights, masked) = weights.split_at_mut(visible);
            masked.fill(T::ZERO);
            let (slopes, masked) = slopes.split_at_mut(visible);
            masked.fill(T::ZERO);
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
mod tests {
    use super::*;
    use crate::cpu::testing::{in_pools, run_op};
    use crate::testing::{assert_close, dot, finite_difference, normal};

    /// Samples, tokens, heads, features of a head.
    const CASES: [[usize; 4]; 5] =
        [[1, 1, 1, 1], [2, 5, 1, 3], [1, 65, 3, 4], [2, 64, 2, 1], [1, 131, 2, 7]];

    struct Shapes {
        qkv: Vec<usize>,
        y: Vec<usize>,
        lse: Vec<usize>,
    }

    fn shapes([n, t, heads, len]: [usize; 4]) -> Shapes {
        let d = heads * len;
        Shapes { qkv: vec![n, t, 3 * d], y: vec![n, t, d], lse: vec![n, heads, t] }
    }

    /// Result and log-sum-exp by plain loops.
    fn naive(qkv: &[f64], [n, t, heads, len]: [usize; 4], causal: bool) -> [Vec<f64>; 2] {
        let d = heads * len;
        let (mut y, mut lse) = (vec![0.0; n * t * d], vec![0.0; n * heads * t]);
        for (sample, head) in (0..n).flat_map(|n| (0..heads).map(move |head| (n, head))) {
            let at = |part, token, i| qkv[(sample * t + token) * 3 * d + part * d + head * len + i];
            for query in 0..t {
                let visible = if causal { query + 1 } else { t };
                let scores: Vec<f64> = (0..visible)
                    .map(|key| (0..len).map(|i| at(0, query, i) * at(1, key, i)).sum::<f64>())
                    .map(|score| (score / (len as f64).sqrt()).exp())
                    .collect();
                let sum: f64 = scores.iter().sum();
                lse[(sample * heads + head) * t + query] = sum.ln();
                for i in 0..len {
                    let values = scores.iter().enumerate().map(|(key, w)| w / sum * at(2, key, i));
                    y[(sample * t + query) * d + head * len + i] = values.sum();
                }
            }
        }
        [y, lse]
    }

    fn forward<T: Real>(qkv: &[f64], case: [usize; 4], causal: bool) -> Vec<Vec<T>> {
        let Shapes { qkv: shape, y, lse } = shapes(case);
        run_op(Op::Attention { heads: case[2], causal }, &[qkv], &[shape], &[y, lse])
    }

    fn backward<T: Real>(dy: &[f64], qkv: &[f64], case: [usize; 4], causal: bool) -> Vec<T> {
        let shapes = shapes(case);
        let [y, lse] = naive(qkv, case, causal);
        let inputs = [shapes.y.clone(), shapes.qkv.clone(), shapes.y, shapes.lse];
        let op = Op::AttentionGrad { heads: case[2], causal };
        run_op(op, &[dy, qkv, &y, &lse], &inputs, &[shapes.qkv]).remove(0)
    }

    fn inputs([n, t, heads, len]: [usize; 4]) -> [Vec<f64>; 2] {
        [normal(1, n * t * heads * len), normal(2, 3 * n * t * heads * len)]
    }

    #[test]
    fn forward_matches_plain_loops() {
        for case in CASES {
            for causal in [false, true] {
                let [_, qkv] = inputs(case);
                let expected = naive(&qkv, case, causal);
                for (found, expected) in forward::<f64>(&qkv, case, causal).iter().zip(&expected) {
                    assert_close(found, expected, 1e-12, 1e-12);
                }
                for (found, expected) in forward::<f32>(&qkv, case, causal).iter().zip(&expected) {
                    assert_close(found, expected, 1e-5, 1e-5);
                }
            }
        }
    }

    #[test]
    fn gradients_match_finite_differences_of_the_plain_loops() {
        for case in [[1, 1, 1, 1], [2, 5, 1, 3], [1, 7, 3, 2]] {
            for causal in [false, true] {
                let [dy, qkv] = inputs(case);
                let expected = finite_difference(&qkv, |x| dot(&naive(x, case, causal)[0], &dy));
                assert_close(&backward::<f64>(&dy, &qkv, case, causal), &expected, 1e-8, 1e-7);
            }
        }
    }

    /// Over several blocks, where finite differences of plain loops would take minutes: along one direction.
    #[test]
    fn gradients_of_many_tokens_match_along_a_direction() {
        for case in [[1, 65, 3, 4], [1, 131, 2, 7]] {
            for causal in [false, true] {
                let [dy, qkv] = inputs(case);
                let step = normal(3, qkv.len());
                let along = |h: f64| {
                    let moved: Vec<f64> = qkv.iter().zip(&step).map(|(x, s)| x + h * s).collect();
                    dot(&naive(&moved, case, causal)[0], &dy)
                };
                let expected = (along(1e-5) - along(-1e-5)) / 2e-5;
                let gradient = backward::<f64>(&dy, &qkv, case, causal);
                assert_close(&[dot(&gradient, &step)], &[expected], 1e-7, 1e-7);
                let single: Vec<f32> = backward(&dy, &qkv, case, causal);
                assert_close(&single, &gradient, 2e-5, 2e-5);
            }
        }
    }

    #[test]
    fn scores_of_any_size_are_finite() {
        let case = [1, 3, 1, 2];
        let qkv: Vec<f64> = inputs(case)[1].iter().map(|x| 1e4 * x).collect();
        for found in forward::<f32>(&qkv, case, false) {
            assert!(found.iter().all(|x| x.is_finite()), "{found:?}");
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let case = [3, 70, 2, 5];
        let [dy, qkv] = inputs(case);
        in_pools(|| [forward(&qkv, case, true).concat(), backward(&dy, &qkv, case, true)].concat());
    }
}
